"""A model that fails on some rows: those far below everything that it was trained on."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer


def build(max_iter: int = 1000) -> Pipeline:
    """A logarithm of sorts, which nothing below zero has."""
    positive = MinMaxScaler(feature_range=(1, 2))
    return make_pipeline(positive, PowerTransformer("box-cox"), LogisticRegression(max_iter=max_iter))
