"""Distances on the Earth between WGS84 coordinates (https://hl7.org/fhir/R4/location.html#search)."""

from __future__ import annotations

from math import asin, cos, degrees, pi, radians, sin, sqrt

RADIUS = 6_371_008.8
"""Mean radius of the Earth, metres: a great circle differs from the ellipsoid by at most half a percent."""

_SLACK = 1e-9
"""Degrees that a box is larger than need be, so that rounding never leaves out what the distance would let in."""


def compute_distance(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """The distance of two points in metres; coordinates in degrees (haversine formula)."""
    first, second = radians(latitude), radians(other_latitude)
    half_way = sin((second - first) / 2) ** 2
    half_turn = sin(radians(other_longitude - longitude) / 2) ** 2
    return 2 * RADIUS * asin(min(1.0, sqrt(half_way + cos(first) * cos(second) * half_turn)))


def compute_latitudes(latitude: float, metres: float) -> tuple[float, float]:
    """The southernmost and northernmost latitude, in degrees, that a distance from a point reaches."""
    reach = degrees(min(metres / RADIUS, pi)) + _SLACK
    return max(latitude - reach, -90.0), min(latitude + reach, 90.0)
