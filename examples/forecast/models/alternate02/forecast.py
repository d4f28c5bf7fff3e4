"""Forecast the next week of a daily count: ARIMA(2,0,2), which remembers two days on both sides."""

import numpy as np
from statsmodels.tsa.arima.model import ARIMA

from mac.types import InferenceData

HORIZON_DAYS = 7
ORDER = (2, 0, 2)  # (autoregressive, differencing, moving average)


def process_data(input_data: InferenceData) -> InferenceData:
    """Take `count`: one series of daily counts per row. Give `forecast`: the next 7 counts, and their mean."""
    forecasts = [_forecast(series) for series in input_data["count"]]
    return {
        "forecast": np.array(forecasts),
        "weekly_average": np.array([week.mean() for week in forecasts]),
    }


def _forecast(series: np.ndarray) -> np.ndarray:
    fitted = ARIMA(np.asarray(series, dtype=np.float64), order=ORDER).fit()
    return np.rint(fitted.forecast(steps=HORIZON_DAYS)).astype(np.int64)
