"""The declaration of the ETA system."""

from __future__ import annotations

import mainspring as ms
from mainspring.spec import Feature
from mainspring.systems.eta import features as f
from mainspring.systems.eta.sources import arrivals, places, trips, weather

route = arrivals.per("origin", "destination", name="route")
route_carrier = arrivals.per("origin", "destination", "carrier", name="route_carrier")
route_part = arrivals.per("origin", "destination", "day_part", name="route_part")
pair = arrivals.per("pair", name="pair")
service = arrivals.per("service", "origin", "destination", name="service")
origin = arrivals.per("origin", name="origin")
origin_part = arrivals.per("origin", "day_part", name="origin_part")
destination = arrivals.per("destination", name="destination")
destination_part = arrivals.per("destination", "day_part", name="destination_part")
area = arrivals.per("area", name="area")
network = arrivals.per(name="network")
vehicle = arrivals.per("vehicle", name="vehicle")
origin_trips = trips.per("origin", name="origin_trips")
origin_weather = weather.per("place", on="origin", name="weather")
origin_place = places.per("place", on="origin", name="origin_place", required=True)
destination_place = places.per("place", on="destination", name="destination_place", required=True)

distance_rule = ms.LinearRule("distance_rule", on="trip_km")
route_median = ms.GroupMedian("route_median", by=("origin", "destination"))
recent_ratio = ms.RecentRatio("recent_ratio", base=route_median, band="haul", window="7d", delay="1d")

FEATURES: list[Feature] = [
    *(trips[name] for name in ("origin", "destination", "carrier", "distance_km", "planned_minutes", "departure_delay")),
    *(f.local_clock, f.local_hour, f.planned_hour, f.weekday, f.holiday, f.trip_km),
    *(origin_weather.last(column, max_age="4h") for column in ("wind_from_deg", "wind_speed_ms", "visibility_km")),
    *(origin_weather.mean("precipitation_mm", "3h"), f.wind_north, f.wind_east),
    *(origin_place.last("latitude"), destination_place.last("latitude"), vehicle.last("over_plan", max_age="1d")),
    *(route.count("7d"), route.mean("minutes", "7d"), route.mean("minutes"), route.last("minutes"), route.mean("distance_km")),
    *(route_carrier.mean("over_plan", "1d"), route_part.mean("over_plan", "14d"), route_part.mean("minutes")),
    *(pair.mean("minutes"), pair.mean("distance_km"), service.mean("over_plan", "21d")),
    *(origin_trips.count("1h"), origin_trips.count("3h"), origin_trips.count("1d")),
    *(origin.count("2h"), origin.count("1d"), origin.mean("ground_minutes", "90m"), f.under_way),
    *(origin_part.mean("ground_minutes", "28d"), origin_part.mean("pace"), destination_part.mean("pace")),
    *(destination.mean("pace", "12h"), destination.mean("pace", "14d"), f.destination_air),
    *(area.mean("pace", "6h"), area.mean("pace", "14d"), f.area_air, area.mean("air_over_plan", "6h"), area.mean("over_plan", "2h")),
    *(network.mean("over_plan", "2h"), network.mean("pace", "3h"), network.mean("pace", "1d"), f.typical_pace, f.paced_minutes),
]

ONLY_FOR_OTHERS = [
    *("distance_km", "local_clock", "weather__wind_from_deg_last", "weather__wind_speed_ms_last", "route__distance_km_mean"),
    *("pair__distance_km_mean", "origin_trips__count_1d", "origin__count_1d", "destination__pace_mean_12h", "destination__pace_mean_14d"),
    *("area__pace_mean_6h", "area__pace_mean_14d", "typical_pace", "origin_place__latitude_last", "destination_place__latitude_last"),
]

WATCHED = [
    *("origin", "destination", "carrier", "distance_km", "planned_minutes", "departure_delay", "local_hour"),
    *("vehicle__over_plan_last", "origin_trips__count_1h", "origin__count_2h", "service__over_plan_mean_21d"),
]

system = ms.System(
    "eta",
    question="How many minutes from departure to arrival?",
    requirements=ms.Requirements(
        users=500_000,
        peak_rps=200,
        latency_p99="50ms",
        availability=0.999,
        cost_per_1k=0.01,
        explain="reasons",
        quality=[
            ms.at_most("mae", 0.80, of="route_median"),
            ms.at_most("mae", 0.70, of="distance_rule"),
            ms.at_most("mae", 0.95, of="recent_ratio"),
            ms.between("coverage", 0.75, 0.85),
        ],
    ),
    request=trips,
    features=FEATURES,
    label=ms.Label(arrivals, "minutes", on="trip_id", matures_after="1d"),
    model=ms.LightGBM(
        objective="regression_l1",
        trees=120,
        leaves=63,
        learning_rate=0.12,
        min_leaf_rows=100,
        feature_fraction=0.5,
        l2=0.0,
        bins=127,
        offset="planned_minutes",
        interval=(0.1, 0.9),
        holdout="14d",
        retrain_every="14d",
        ignore=ONLY_FOR_OTHERS,
    ),
    baselines=[distance_rule, route_median, recent_ratio],
    policy=ms.Policy(fallback=["previous", "distance_rule"], feature_deadline="20ms", floor=0.5),
    monitors=[ms.Monitor("error", by=["origin", "local_hour"], retrain=True), ms.Monitor("drift", features=WATCHED, retrain=True)],
    rollout=ms.Rollout(unit="trip_id", steps=(0.01, 0.10, 1.0), shadow="1d", step="1d", min_labels=200, margin=0.02, cooldown="7d"),
)
