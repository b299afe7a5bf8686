"""276/277 claim status, 005010X212, and 277 claim acknowledgement, 005010X214 (columns: `mappers/x12/table.py`)."""

from __future__ import annotations

from mappers.x12.table import parse_table

_HEAD = """
50 ST R 1 need=3
100 BHT R 1 match=1:0010
loop 2000A in ST at 1000 R *: payer level
  100 HL R 1 match=3:20 need=4
loop 2100A in 2000A at 500 R 1: payer
  500 NM1 R 1 match=1:PR need=3,8,9
  800 PER S 1 match=1:IC need=3,4
loop 2000B in 2000A at 9000 R *: information receiver level
  100 HL R 1 match=3:21 need=2,4
loop 2100B in 2000B at 500 R 1: information receiver
  500 NM1 R 1 match=1:41 need=8,9
loop 2000C in 2000B at 9000 S *: provider level
  100 HL R 1 match=3:19 need=2,4
loop 2100C in 2000C at 500 R 2: provider
  500 NM1 R 1 match=1:1P need=8,9
"""

_STATUS_OF_LEVEL = """
loop 2200{x} in 2000{x} at 900 S 1: status of the {name}
  900 TRN R 1
  1000 STC R *
"""

_PERSON_276 = """
loop 2000{x} in {parent} at 9000 S *: {name} level
  100 HL R 1 match=3:{level} need=2
  400 DMG S 1 match=1:D8
loop 2100{x} in 2000{x} at 500 R 1: {name}
  500 NM1 R 1 match=1:{entity}
loop 2200{x} in 2000{x} at 900 S *: claim asked for
  900 TRN R 1 match=1:1
  1000 REF S 1/q match=1:1K,BLT,EA,EJ,LU,XZ,D9 need=2
  1100 AMT S 1 match=1:T3
  1200 DTP S 1 match=1:472
loop 2210{x} in 2200{x} at 1300 S *: line asked for
  1300 SVC R 1 need=2
  1400 REF S 1 match=1:FJ need=2
  1500 DTP R 1 match=1:472
"""

_PERSON_277 = """
loop 2000{x} in {parent} at 9000 S *: {name} level
  100 HL R 1 match=3:{level} need=2
  400 DMG S 1 match=1:D8
loop 2100{x} in 2000{x} at 500 R 1: {name}
  500 NM1 R 1 match=1:{entity}
loop 2200{x} in 2000{x} at 900 S *: claim's status
  900 TRN R 1 match=1:2
  1000 STC R *
  1100 REF S 1/q match=1:1K,BLT,EJ,XZ,VV,D9 need=2
  1200 DTP S 1 match=1:472
loop 2220{x} in 2200{x} at 1800 S *: line's status
  1800 SVC R 1 need=2,3
  1900 STC R *
  2000 REF S 1 match=1:FJ need=2
  2100 DTP R 1 match=1:472
"""

_END = """
loop SE in ST at 9990 R 1: trailer
  9990 SE R 1
"""

_SUBSCRIBER = {"x": "D", "parent": "2000C", "name": "subscriber", "level": "22", "entity": "IL"}
_DEPENDENT = {"x": "E", "parent": "2000D", "name": "dependent", "level": "23", "entity": "QC"}
_LEVELS = "".join(
    _STATUS_OF_LEVEL.format(x=x, name=name) for x, name in (("B", "information receiver"), ("C", "provider"))
)

ROWS_276 = _HEAD + _PERSON_276.format_map(_SUBSCRIBER) + _PERSON_276.format_map(_DEPENDENT) + _END
ROWS_277 = _HEAD + _LEVELS + _PERSON_277.format_map(_SUBSCRIBER) + _PERSON_277.format_map(_DEPENDENT) + _END

ROWS_277CA = """
50 ST R 1 need=3
200 BHT R 1 match=1:0085
loop 2000A in ST at 1000 R *: information source level
  100 HL R 1 match=3:20 need=4
loop 2100A in 2000A at 500 R 1: information source
  500 NM1 R 1 match=1:PR,AY need=3,8,9
loop 2200A in 2000A at 900 R *: receipt
  900 TRN R 1 match=1:1
  1200 DTP R 1 match=1:050
  1200 DTP R 1 match=1:009
loop 2000B in 2000A at 9000 R 1: information receiver level
  100 HL R 1 match=3:21 need=2,4
loop 2100B in 2000B at 500 R 1: information receiver
  500 NM1 R 1 match=1:41 need=3,8,9
loop 2200B in 2000B at 900 R 1: status of the batch
  900 TRN R 1 match=1:2
  1000 STC R * need=3,4
  1210 QTY S 1/q match=1:90,AA
  1220 AMT S 1/q match=1:YU,YY
loop 2000C in 2000B at 9000 S *: billing provider level
  100 HL R 1 match=3:19 need=2,4
loop 2100C in 2000C at 500 R *: billing provider
  500 NM1 R 1 match=1:85 need=3,8,9
loop 2200C in 2000C at 900 S 1: status of the provider
  900 TRN R 1 match=1:1
  1000 STC S * need=3,4
  1100 REF S 1/q match=1:0B,1G,G2,LU,SY,TJ need=2
  1210 QTY S 1/q match=1:QA,QC
  1220 AMT S 1/q match=1:YU,YY
loop 2000D in 2000C at 9000 S *: patient level
  100 HL R 1 match=3:PT need=2
loop 2100D in 2000D at 500 R 1: patient
  500 NM1 R 1 match=1:QC need=3,8,9
loop 2200D in 2000D at 900 S *: claim's status
  900 TRN R 1 match=1:2
  1000 STC R * need=3,4
  1100 REF S 1/q match=1:1K,D9,BLT need=2
  1200 DTP R 1 match=1:472
loop 2220D in 2200D at 1800 S *: line's status
  1800 SVC R 1
  1900 STC R *
  2000 REF S 1/q match=1:FJ,XZ need=2
  2100 DTP S 1 match=1:472
loop SE in ST at 9990 R 1: trailer
  9990 SE R 1
"""

TABLE_276 = parse_table("276", "005010X212", "HR", ROWS_276)
TABLE_277 = parse_table("277", "005010X212", "HN", ROWS_277)
TABLE_277CA = parse_table("277", "005010X214", "HN", ROWS_277CA)
