"""Reports on plans and their differences: terminal tables, HTML pages and plain data."""
