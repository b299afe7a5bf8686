"""270 eligibility inquiry and 271 response, 005010X279A1: loops and segments (columns: `mappers/x12/table.py`)."""

from __future__ import annotations

from mappers.x12.table import parse_table

# The subscriber's loops end in C, the dependent's in D; what stands in them is the same.
_PERSON_270 = """
loop 2000{x} in {parent} at 9000 {usage} *: {name} level
  100 HL R 1 match=3:{level} need=2,4
  200 TRN S 2 match=1:1 need=3
loop 2100{x} in 2000{x} at 300 R 1: {name}
  300 NM1 R 1 match=1:{entity}
  400 REF S 9 need=2
  600 N3 S 1
  700 N4 S 1 need=1
  800 PRV S 1
  900 DMG S 1
  1000 INS S 1
  1150 HI S 1
  1200 DTP S 2 match=1:291,102
loop 2110{x} in 2000{x} at 1300 S 99: inquiry
  1300 EQ R 1
  1350 AMT S 2
  1700 III S 1
  1900 REF S 1 need=2
  2000 DTP S 1 match=1:291
"""

_HEAD = """
50 ST R 1 need=3
200 BHT R 1 match=1:0022
loop 2000A in ST at 1000 R *: information source level
  100 HL R 1 match=3:20 need=4
  250 AAA S 9
loop 2100A in 2000A at 300 R 1: information source
  300 NM1 R 1
  400 REF S 9 need=2
  800 PER S 3
  850 AAA S 9
loop 2000B in 2000A at 9000 S *: information receiver level
  100 HL R 1 match=3:21 need=2,4
loop 2100B in 2000B at 300 R 1: information receiver
  300 NM1 R 1
  400 REF S 9 need=2
  600 N3 S 1
  700 N4 S 1 need=1
  850 AAA S 9
  900 PRV S 1
"""

_PERSON_271 = """
loop 2000{x} in {parent} at 9000 {usage} *: {name} level
  100 HL R 1 match=3:{level} need=2,4
  200 TRN S 3 match=1:1,2 need=3
loop 2100{x} in 2000{x} at 300 R 1: {name}
  300 NM1 R 1 match=1:{entity}
  400 REF S 9 need=2
  600 N3 S 1
  700 N4 S 1 need=1
  850 AAA S 9
  900 PRV S 1
  1000 DMG S 1
  1100 INS S 1
  1150 HI S 1
  1200 DTP S 9
  1275 MPI S 1
loop 2110{x} in 2000{x} at 1300 S *: benefit
  1300 EB R 1
  1350 HSD S 9
  1400 REF S 9 need=2
  1500 DTP S 20
  1600 AAA S 9
  2500 MSG S 10
loop 2115{x} in 2110{x} at 2600 S 10: further benefit detail
  2600 III R 1
loop LS{x} in 2110{x} at 3300 S 1: loop header
  3300 LS R 1
loop 2120{x} in LS{x} at 3400 S 23: benefit-related entity
  3400 NM1 R 1
  3500 REF S 9 need=2
  3600 N3 S 1
  3700 N4 S 1 need=1
  3800 PER S 3
  3900 PRV S 1
loop LE{x} in LS{x} at 4000 R 1: loop trailer
  4000 LE R 1
"""

_END = """
loop SE in ST at 9990 R 1: trailer
  9990 SE R 1
"""


def _fill(person: str) -> str:
    subscriber = {"x": "C", "parent": "2000B", "usage": "S", "name": "subscriber", "level": "22", "entity": "IL"}
    dependent = {"x": "D", "parent": "2000C", "usage": "S", "name": "dependent", "level": "23", "entity": "03"}
    return _HEAD + person.format_map(subscriber) + person.format_map(dependent) + _END


TABLE_270 = parse_table("270", "005010X279A1", "HS", _fill(_PERSON_270))
TABLE_271 = parse_table("271", "005010X279A1", "HB", _fill(_PERSON_271))
