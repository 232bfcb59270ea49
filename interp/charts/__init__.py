"""Kinds of chart: curves over training, bars, heatmap, facets, scatter."""
