"""Figures of a report: pure functions from arrays to matplotlib figures.

All figures can also be read when they are printed in grey.
"""

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colours of Okabe and Ito, which colour-blind people can tell apart. Line styles differ, too.
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
_LINES: tuple[dict[str, Any], ...] = (
    {"color": _BLUE, "linestyle": "-", "linewidth": 2.6},
    {"color": _ORANGE, "linestyle": "-.", "linewidth": 1.6},
    {"color": _GREEN, "linestyle": ":", "linewidth": 2.0},
    {"color": _PURPLE, "linestyle": (0, (8, 2)), "linewidth": 1.2},
)
# Neighbours differ in brightness, so that they can be told apart in grey, too.
_FILLS = (_BLUE, "#56B4E9", "#F0E442", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "0.9")
# There is one hatch fewer than fills, so that a fill gets another hatch when it comes again.
_HATCHES = ("", "////", "", "\\\\\\\\", "....", "", "xxxx")
_BINS = 40
_DPI = 200
_SMALL = 8
_WIDEST = 0.62  # width of a usual letter of the font, as a share of its size
_LINES_AT_MOST = 3


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], auroc: Mapping[str, float]
) -> Figure:
    """Draws ROC curves of several scores in one plot, as in Figures 2 and 4 of arXiv 1907.06312.

    Args:
        curves: score name -> false and true positive rates, each float (K,), from 0 to 1.
        auroc: score name -> area under its curve, for the legend.
    """
    figure, axes = _figure(5, 4.6)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="guessing: 0.500")
    for (name, rates), line in zip(curves.items(), itertools.cycle(_LINES), strict=False):
        axes.plot(*rates, label=f"{name}: {auroc[name]:.3f}", **line)
    axes.set(
        xlabel="false-alarm rate (normal images flagged)",
        ylabel="detection rate (anomalies flagged)",
        xlim=(-0.01, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    # The line of guessing is drawn first, so that it lies below, but it is last in the legend.
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        [*handles[1:], handles[0]],
        [*labels[1:], labels[0]],
        title="auROC",
        loc="lower right",
        handlelength=4,
    )
    return figure


def histogram_figure(
    scores: np.ndarray, is_anomaly: np.ndarray, name: str, threshold: float | None = None
) -> Figure:
    """Draws the distribution of one score among normal images and among anomalies.

    Args:
        scores: finite float (N,).
        is_anomaly: bool (N,).
        name: name of the score.
        threshold: value that is marked. `None` marks nothing.
    """
    figure, axes = _figure(4.2, 3)
    scores = np.asarray(scores, "float64")
    edges = np.histogram_bin_edges(scores, _BINS).tolist()
    style: dict[str, Any]
    for kind, label, style in (
        (~is_anomaly, "normal", {"histtype": "stepfilled", "color": _BLUE, "alpha": 0.45}),
        (is_anomaly, "anomaly", {"histtype": "step", "color": _ORANGE, "hatch": "////"}),
    ):
        weights = np.full(kind.sum(), 1 / max(kind.sum(), 1))
        axes.hist(scores[kind], edges, weights=weights, label=label, linewidth=1.4, **style)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel=name, ylabel="share of the images")
    axes.legend()
    return figure


def stacked_figure(rows: Sequence[np.ndarray], captions: Sequence[str]) -> Figure:
    """Draws images above what belongs to them, as in Figure 3 of arXiv 1907.06312.

    Args:
        rows: images, and then their reconstructions, heat maps or neighbours: uint8 or float in
            [0, 1], each (N, H, W, C), C = 1 or 3.
        captions: N texts of one or more lines, which are drawn below.
    """
    return _grid(list(itertools.chain(*rows)), captions, len(captions), len(rows), 0.9)


def history_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draws curves over the epochs.

    These are the loss and all measures that were also computed in validation. If there are none,
    all measures are drawn.

    Args:
        history: measure -> one value for each epoch, as Keras records it. `val_x` is drawn with
            `x`.
    """
    names = [name for name in history if name == "loss" or f"val_{name}" in history]
    names = names or list(history)
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.9 * rows), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = _plain(figure.add_subplot(rows, columns, place))
        for key, label, line in ((name, "train", 0), (f"val_{name}", "validation", 1)):
            if key in history:
                epochs = np.arange(1, len(history[key]) + 1)
                # A single epoch has no line, but it has a marker.
                axes.plot(epochs, history[key], marker=".", label=label, **_LINES[line])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.legend()
    return figure


def bar_figure(
    groups: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]]
) -> Figure:
    """Draws bars of the auROC of several methods, as in Figures 5 to 7 of arXiv 1907.06312.

    Args:
        groups: G captions below the bars.
        series: method -> for each group the auROC in [0, 1], and the lower and upper end of its
            error bar. NaN draws no bar.
    """
    width = 0.84 / len(series)
    columns = min(len(series), 4)
    width_of_bars = 0.5 + len(groups) * (0.25 + 0.13 * len(series))
    figure, axes = _figure(max(5, 2.2 * columns, width_of_bars), 3.8)
    places = np.arange(len(groups))
    for index, (name, values) in enumerate(series.items()):
        heights, low, high = np.array(values, float).reshape(-1, 3).T
        axes.bar(
            places + (index - (len(series) - 1) / 2) * width,
            heights,
            width,
            yerr=(heights - low, high - heights),
            label=name,
            facecolor=_FILLS[index % len(_FILLS)],
            hatch=_HATCHES[index % len(_HATCHES)],
            edgecolor="black",
            linewidth=0.6,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
    axes.axhline(0.5, color="0.4", linestyle="--", linewidth=1)
    axes.set(ylabel="auROC", xlabel="anomaly", ylim=(0, 1.02))
    axes.set_xticks(places, groups, parse_math=False)
    figure.legend(loc="outside upper center", ncols=columns, fontsize=_SMALL)
    return figure


def evidence_figure(capital: np.ndarray, needed: float, since: int | None) -> Figure:
    """Draws the evidence that served images have changed, image by image.

    Args:
        capital: decimal logarithm of the capital after each image, float (N,).
        needed: value from which there is an alarm.
        since: number of the image with which the change began. `None` marks nothing.
    """
    figure, axes = _figure(7, 3)
    axes.plot(np.arange(1, len(capital) + 1), capital, color=_BLUE, linewidth=1.6)
    axes.axhline(needed, color=_ORANGE, linestyle="--", linewidth=1.2, label="alarm")
    if since is not None:
        axes.axvline(since, color="0.3", linestyle=":", linewidth=1.4, label="since about here")
    axes.set(xlabel="images", ylabel="evidence of a change, 10^x to 1", xlim=(0, len(capital) + 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend()
    return figure


def png(figure: Figure) -> bytes:
    """Returns the figure as PNG. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, _plain(figure.add_subplot())


def _plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _grid(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int, rows: int, width: float
) -> Figure:
    """Draws images in a grid, row by row. The `captions` belong to the last images."""
    captions = [_wrapped(caption, width) for caption in captions]
    lines = 1 + max(caption.count("\n") for caption in captions)
    height = width * images[0].shape[0] / images[0].shape[1]
    caption_height = (0.2 + 0.15 * lines) * (rows if len(captions) == len(images) else 1)
    figure = Figure(
        figsize=(width * columns, height * rows + caption_height),
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0),
    )
    for place, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, place + 1)
        # Grey images are drawn without the axis of channels. Black is 0, and white 255 or 1.
        axes.imshow(
            np.squeeze(image, axis=-1) if image.shape[-1] == 1 else image,
            cmap="gray",
            vmin=0,
            vmax=255 if image.dtype == np.uint8 else 1,
            interpolation="nearest",
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_edgecolor("0.8")
        caption = place - len(images) + len(captions)
        if caption >= 0:
            # Class names come from users, so a $ in a name does not begin a formula.
            axes.set_xlabel(captions[caption], fontsize=_SMALL, parse_math=False)
    return figure


def _wrapped(caption: str, width: float) -> str:
    """Breaks the lines of a caption, so that it is no wider than `width` inches."""
    characters = int(width * 72 / (_SMALL * _WIDEST))
    lines = (
        textwrap.wrap(line, characters, max_lines=_LINES_AT_MOST, placeholder="…")
        for line in caption.split("\n")
    )
    return "\n".join(itertools.chain(*lines))
