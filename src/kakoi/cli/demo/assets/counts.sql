-- Patients, deaths and median days by sex and ECOG performance status.
SELECT
  sex,
  ph_ecog,
  count(*)                                          AS patients,
  sum(CASE WHEN status = 1 THEN 1 ELSE 0 END)       AS deaths,
  median(time)                                      AS median_days
FROM lung
WHERE ph_ecog IS NOT NULL
GROUP BY sex, ph_ecog
ORDER BY sex, ph_ecog
