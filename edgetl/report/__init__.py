"""Records turned into what people read: `report.json`, `report.html` and tables in the terminal.

`document` defines what a report holds, `html` and its charts draw the page, `terminal` prints tables.
"""
