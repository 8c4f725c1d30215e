"""The reading of stored runs: tables, statistics, figures and the report. No model is needed here."""
