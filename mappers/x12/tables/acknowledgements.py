"""999 implementation acknowledgement, 005010X231A1: loops and segments (columns: `mappers/x12/table.py`)."""

from __future__ import annotations

from mappers.x12.table import parse_table

ROWS = """
50 ST R 1 need=3
200 AK1 R 1 need=3
loop 2000 in ST at 300 S *: answer to a transaction set
  300 AK2 R 1
  800 IK5 R 1
loop 2100 in 2000 at 400 S *: error in a segment
  400 IK3 R 1
  500 CTX S 10
loop 2110 in 2100 at 600 S *: error in an element
  600 IK4 R 1
  700 CTX S 10
loop AK9 in ST at 900 R 1: answer to the group
  900 AK9 R 1
loop SE in ST at 9990 R 1: trailer
  9990 SE R 1
"""

TABLE_999 = parse_table("999", "005010X231A1", "FA", ROWS)
