SELECT site, count(*) AS patients
FROM heart
WHERE age IS NOT NULL AND sex IS NOT NULL AND cp IS NOT NULL AND trestbps IS NOT NULL AND chol IS NOT NULL
  AND fbs IS NOT NULL AND restecg IS NOT NULL AND thalach IS NOT NULL AND exang IS NOT NULL AND oldpeak IS NOT NULL
GROUP BY site
