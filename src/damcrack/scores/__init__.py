"""Numbers that say how good an answer is: metrics, intervals, tests, calibration, brightness thresholds; numpy."""
