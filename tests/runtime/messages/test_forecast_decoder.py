"""Messages with forecasts, as services and home automation write them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edge_lstm.bundle.contract import Feature, KnownAhead
from edge_lstm.foundation.config import from_mapping
from edge_lstm.foundation.errors import ConfigError
from edge_lstm.messages.forecasts.forecast_decoder import ForecastDecoder
from edge_lstm.messages.forecasts.forecast_mapping import ForecastMapping
from edge_lstm.messages.formats.payloads import PayloadError
from edge_lstm.streaming.forecasts import Forecast
from tests.networks import contract_of, random_network

NOON = 1_772_366_400.0  # 2026-03-01T12:00:00Z
OUTDOOR = KnownAhead("outdoor", "weather/{stream}/forecast", [1, 6])


def decoder_of(unit: str = "", known: KnownAhead = OUTDOOR, categories: Any = (), **keys: Any) -> ForecastDecoder:
    features = [Feature("level"), *(Feature(name, unit, categories=list(categories)) for name in known.features)]
    contract = contract_of(random_network(inputs=len(features)), features=features, known_ahead=[known], clock=[])
    return ForecastDecoder(contract, {known.name: from_mapping(keys, ForecastMapping, "service.toml")} if keys else {})


def forecast(decoder: ForecastDecoder, payload: Any, topic: str = "weather/attic/forecast") -> Forecast:
    (found,) = decoder.forecasts(topic, json.dumps(payload).encode(), NOON)
    assert found.quantity == "outdoor"
    return found.forecast


@pytest.mark.parametrize(
    ("keys", "payload"),
    [
        ({}, [{"time": "2026-03-01T12:00:00Z", "value": 7.5}, {"time": "2026-03-01T13:00:00Z", "value": 8}]),
        ({}, {"time": ["2026-03-01T12:00", "2026-03-01T13:00"], "outdoor": [7.5, 8]}),
        ({"interval_s": 3600}, {"time": NOON, "values": [7.5, 8]}),
        ({}, [{"time": NOON + 3600, "value": "8"}, {"time": NOON, "value": "7.5"}]),  # in any order
        (  # Home Assistant: the response of weather.get_forecasts
            {"points": '"weather.home".forecast', "time": "datetime", "value": "temperature"},
            {
                "weather.home": {
                    "forecast": [
                        {"datetime": "2026-03-01T12:00:00+00:00", "temperature": 7.5, "humidity": 80},
                        {"datetime": "2026-03-01T14:00:00+01:00", "temperature": 8.0, "humidity": 79},
                    ]
                }
            },
        ),
        (  # Open-Meteo: lists of all hours, local times without a zone
            {"points": "hourly", "value": "temperature_2m", "timezone": "Europe/Berlin"},
            {
                "hourly_units": {"temperature_2m": "°C"},
                "hourly": {"time": ["2026-03-01T13:00", "2026-03-01T14:00"], "temperature_2m": [7.5, 8.0]},
            },
        ),
        ({"scale": 0.1}, {"time": [NOON, NOON + 3600], "value": [75, 80]}),
        ({"unit": "strip"}, [{"time": NOON, "value": "7.5 °C"}, {"time": NOON + 3600, "value": "8 °C"}]),
    ],
)
def test_every_usual_form_gives_the_same_points(keys: dict[str, Any], payload: Any) -> None:
    assert forecast(decoder_of(**keys), payload) == Forecast([NOON, NOON + 3600], [7.5, 8.0])


def test_the_topic_names_the_stream_or_else_the_forecast_is_for_all() -> None:
    payload = json.dumps([{"time": NOON, "value": 1}]).encode()
    (found,) = decoder_of().forecasts("weather/attic/forecast", payload, NOON)
    assert found.stream == "attic"
    decoder = decoder_of(topic="weather")
    assert decoder.topic_filters == ["weather"]
    assert [one.stream for one in decoder.forecasts("weather", payload, NOON)] == [None]
    assert not decoder.is_for("weather/attic/forecast")
    assert decoder_of().forecasts("weather/attic/forecast", b"", NOON) == []  # it clears a retained message


def test_values_out_of_range_and_unknown_categories_are_missing() -> None:
    points = {"time": [NOON, NOON + 1, NOON + 2], "value": [7.5, 99.0, None]}
    found = forecast(decoder_of(most=60.0), points)
    assert found.values == pytest.approx([7.5, math.nan, math.nan], nan_ok=True)
    known = KnownAhead("outdoor", "plan", [0], "previous")
    named = forecast(
        decoder_of(known=known, categories=["day", "night"]), {**points, "value": ["night", "day", "?"]}, "plan"
    )
    assert named.values == pytest.approx([1.0, 0.0, math.nan], nan_ok=True)


def test_the_time_of_issue_is_read_where_the_mapping_names_it() -> None:
    payload = {"issued": "2026-03-01T11:00:00Z", "time": NOON, "value": 1.0}
    assert forecast(decoder_of(issued="issued"), payload).issued == NOON - 3600
    assert forecast(decoder_of(), payload).issued is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("7.5", "expected points of a forecast, found 7.5"),
        ("[]", "expected points of a forecast, found []"),
        ("{", "expected JSON"),
        ("[7.5]", "expected points with a time and a value, found 7.5"),
        ('[{"value": 7.5}]', 'expected the time of a point under "time"'),
        ('[{"time": 1772366400}]', 'expected the value of outdoor under "value" or "values" or "outdoor"'),
        ('[{"time": "soon", "value": 7.5}]', "soon"),
        ('[{"time": 1772366400, "value": "warm"}]', 'expected a number under "outdoor", found "warm"'),
        ('[{"time": 1772366400, "value": "8 °F"}]', "expected it in °C"),
        ('[{"time": 1772366400, "value": null}]', "expected a value in a forecast of outdoor, found none in 1 points"),
        ('{"time": [1772366400, 1772370000], "value": [7]}', "expected as many times as values, found 2 and 1"),
    ],
)
def test_a_message_that_is_no_forecast_is_refused_with_a_reason(payload: str, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        decoder_of(unit="°C").forecasts("weather/attic/forecast", payload.encode(), NOON)
    assert reason in str(refused.value)


def test_a_forecast_of_too_many_points_is_refused() -> None:
    payload = {"time": NOON, "values": [1.0] * 2001}
    with pytest.raises(PayloadError, match="expected 1 to 2,000 points of a forecast, found 2,001"):
        forecast(decoder_of(), payload)


def test_a_mapping_of_another_quantity_or_with_another_part_is_refused() -> None:
    contract = contract_of(random_network())
    with pytest.raises(ConfigError, match=r"forecasts\.wind: expected none, since the bundle takes no forecasts"):
        ForecastDecoder(contract, {"wind": ForecastMapping()})
    with pytest.raises(ConfigError, match=r"topic: expected no other part than \{stream\}, found \{site\}"):
        from_mapping({"topic": "{site}/{stream}"}, ForecastMapping, "service.toml")
    with pytest.raises(ConfigError, match="timezone: expected a zone"):
        from_mapping({"timezone": "Europe/Nowhere"}, ForecastMapping, "service.toml")
