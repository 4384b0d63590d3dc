SELECT site, num, count(*) AS patients
FROM heart
GROUP BY site, num
