"""835 remittance advice, 005010X221A1: loops and segments (columns: `mappers/x12/table.py`)."""

from __future__ import annotations

from mappers.x12.table import parse_table

ROWS = """
100 ST R 1
200 BPR R 1 need=4,16
300 NTE S *
400 TRN R 1 match=1:1 need=3
500 CUR S 1 match=1:PR
600 REF S 1/q match=1:EV,F2 need=2
700 DTM S 1 match=1:405 need=2
loop 1000A in ST at 800 R 1: payer
  800 N1 R 1 match=1:PR need=2
  1000 N3 R 1
  1100 N4 R 1 need=1
  1200 REF S 4 match=1:2U,EO,HI,NF need=2
  1300 PER S 1 match=1:CX
  1300 PER R * match=1:BL
  1300 PER S 1 match=1:IC need=3,4
loop 1000B in ST at 810 R 1: payee
  800 N1 R 1 match=1:PE need=2,3,4
  1000 N3 S 1
  1100 N4 S 1 need=1
  1200 REF S * match=1:0B,D3,PQ,TJ need=2
  1400 RDM S 1
loop 2000 in ST at 2000 S *: header number
  30 LX R 1
  50 TS3 S 1 need=2,3,4,5
  70 TS2 S 1
loop 2100 in 2000 at 100 R *: claim payment
  100 CLP R 1 need=2,3,4,6,7
  200 CAS S 99 match=1:CO,OA,PI,PR,CR
  300 NM1 R 1 match=1:QC
  300 NM1 S 1/q match=1:IL,74,82,TT,PR,GB
  330 MIA S 1
  350 MOA S 1
  400 REF S 15 need=2
  500 DTM S 1/q match=1:232,233,036,050 need=2
  600 PER S 2 match=1:CX need=3,4
  620 AMT S 13
  640 QTY S 14
loop 2110 in 2100 at 700 S 999: service payment
  700 SVC R 1 need=2,3
  800 DTM S 1/q match=1:150,151,472 need=2
  900 CAS S 99 match=1:CO,OA,PI,PR,CR
  1000 REF S 24 need=2
  1100 AMT S 9
  1200 QTY S 6 match=1:ZK,ZL,ZM,ZN,ZO
  1300 LQ S 99 match=1:HE,RX need=2
loop PLB in ST at 8000 S *: provider adjustment
  8000 PLB R 1
loop SE in ST at 9000 R 1: trailer
  9000 SE R 1
"""

TABLE_835 = parse_table("835", "005010X221A1", "HP", ROWS)
