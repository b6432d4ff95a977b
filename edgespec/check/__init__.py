"""What is proved and measured on this device: losslessness, records of runs, the doctor."""
