SELECT sex, smoker, count(*) AS patients, avg(pressure) AS mean_pressure
FROM visits
WHERE age >= $minimum_age
GROUP BY sex, smoker
ORDER BY sex, smoker
