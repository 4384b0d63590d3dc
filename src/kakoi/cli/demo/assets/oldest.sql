-- Honest for most ages; for the highest it would tell the survival of one person.
SELECT sex, count(*) AS patients, avg(time) AS mean_days
FROM lung
WHERE age >= $minimum_age
GROUP BY sex
ORDER BY sex
