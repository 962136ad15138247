"""Ensembles in the formats of XGBoost and LightGBM, and in one of our own, without a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.errors import DataError, Fault
from fl_inmetro.trees.forest import Ensemble, Tree

Floats = NDArray[np.float64]

#: Version of our own format.
FORMAT = 1

#: No parent, in XGBoost's arrays.
_ROOT = 2147483647

#: Arrays of a tree that are kept.
_KEPT = ("feature", "bin", "missing_left", "left", "value", "count", "gain")


def to_xgboost(ensemble: Ensemble) -> str:
    """Return XGBoost's own JSON (3.2): `Booster.load_model` of a file with it.

    A row goes left where x < edge, as with us. Learning rates and weights are in the leaves.
    """
    trees = [
        _xgboost_tree(tree, weight, ensemble, number)
        for number, (tree, weight) in enumerate(zip(ensemble.trees, ensemble.weights, strict=True))
    ]
    count = len(trees)
    features = len(ensemble.edges)
    model = {
        "version": [3, 2, 0],
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "name": "gbtree",
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(count)},
                    "iteration_indptr": [*range(count + 1)],
                    "tree_info": [0] * count,
                    "trees": trees,
                },
            },
            "learner_model_param": {
                "base_score": f"[{ensemble.base:.9E}]",
                "boost_from_average": "0",
                "num_class": "0",
                "num_feature": str(features),
                "num_target": "1",
            },
            "objective": {
                "name": "reg:squarederror",
                "reg_loss_param": {"scale_pos_weight": "1"},
            },
        },
    }
    return json.dumps(model)


def _xgboost_tree(tree: Tree, weight: float, ensemble: Ensemble, number: int) -> dict[str, Any]:
    inner = tree.feature >= 0
    parents = np.full(tree.size, _ROOT)
    parents[tree.left[inner]] = np.flatnonzero(inner)
    parents[tree.left[inner] + 1] = np.flatnonzero(inner)
    conditions = np.where(inner, edges_of_nodes(tree, ensemble), weight * tree.value)
    return {
        "base_weights": (weight * tree.value).tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": tree.missing_left.astype(int).tolist(),
        "id": number,
        "left_children": np.where(inner, tree.left, -1).tolist(),
        "loss_changes": tree.gain.tolist(),
        "parents": parents.tolist(),
        "right_children": np.where(inner, tree.left + 1, -1).tolist(),
        "split_conditions": conditions.tolist(),
        "split_indices": np.maximum(tree.feature, 0).tolist(),
        "split_type": [0] * tree.size,
        "sum_hessian": tree.count.astype(float).tolist(),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(len(ensemble.edges)),
            "num_nodes": str(tree.size),
            "size_leaf_vector": "1",
        },
    }


def edges_of_nodes(tree: Tree, ensemble: Ensemble) -> Floats:
    """Return the edge of each split [node]; 0 at leaves."""
    return np.array(
        [
            ensemble.edges[feature][border - 1] if feature >= 0 else 0.0
            for feature, border in zip(tree.feature, tree.bin, strict=True)
        ]
    )


def to_lightgbm(ensemble: Ensemble) -> str:
    """Return LightGBM's own text (version v4): `Booster(model_str=…)`.

    LightGBM goes left where x ≤ threshold: the threshold is the number right below the edge. The
    start is a first tree with a single leaf.
    """
    features = len(ensemble.edges)
    names = " ".join(f"Column_{number}" for number in range(features))
    ranges = " ".join(
        f"[{edges[0]:.17g}:{edges[-1]:.17g}]" if len(edges) else "none" for edges in ensemble.edges
    )
    trees = [_lightgbm_leaf(ensemble.base)]
    for number, (tree, weight) in enumerate(zip(ensemble.trees, ensemble.weights, strict=True)):
        trees.append(_lightgbm_tree(tree, weight, ensemble, number + 1))
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        "objective=regression",
        f"feature_names={names}",
        f"feature_infos={ranges}",
        f"tree_sizes={' '.join(str(len(tree.encode())) for tree in trees)}",
        "",
        "",
    ]
    tail = "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\n"
    return "\n".join(head) + "".join(trees) + tail + "pandas_categorical:null\n"


def _lightgbm_leaf(value: float) -> str:
    return (
        f"Tree=0\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\n"
        f"decision_type=\nleft_child=\nright_child=\nleaf_value={value:.17g}\nleaf_weight=\n"
        "leaf_count=\ninternal_value=\ninternal_weight=\ninternal_count=\nis_linear=0\n"
        "shrinkage=1\n\n\n"
    )


def _lightgbm_tree(tree: Tree, weight: float, ensemble: Ensemble, number: int) -> str:
    inner = np.flatnonzero(tree.feature >= 0)
    leaves = np.flatnonzero(tree.feature < 0)
    if not len(inner):
        leaf = _lightgbm_leaf(weight * float(tree.value[0]))
        return leaf.replace("Tree=0", f"Tree={number}", 1)
    # Inner nodes are numbered from 0, leaves from −1 downwards.
    name = np.empty(tree.size, dtype=np.int64)
    name[inner] = np.arange(len(inner))
    name[leaves] = -1 - np.arange(len(leaves))
    threshold = np.nextafter(edges_of_nodes(tree, ensemble)[inner], -np.inf)
    # Bit 1: missing values left; bits 2 and 3: missing is NaN.
    decision = 8 + 2 * tree.missing_left[inner]

    def row(key: str, values: Any, form: str = "d") -> str:
        return f"{key}={' '.join(format(value, form) for value in values)}\n"

    return "".join(
        [
            f"Tree={number}\nnum_leaves={len(leaves)}\nnum_cat=0\n",
            row("split_feature", tree.feature[inner]),
            row("split_gain", tree.gain[inner], ".9g"),
            row("threshold", threshold, ".17g"),
            row("decision_type", decision),
            row("left_child", name[tree.left[inner]]),
            row("right_child", name[tree.left[inner] + 1]),
            row("leaf_value", weight * tree.value[leaves], ".17g"),
            row("leaf_weight", tree.count[leaves]),
            row("leaf_count", tree.count[leaves]),
            row("internal_value", weight * tree.value[inner], ".9g"),
            row("internal_weight", tree.count[inner]),
            row("internal_count", tree.count[inner]),
            "is_linear=0\nshrinkage=1\n\n\n",
        ]
    )


def save(ensemble: Ensemble, path: Path) -> None:
    """Write our own format: JSON with every array, read back to the last bit by `load`."""
    content = {
        "format": FORMAT,
        "base": ensemble.base,
        "weights": list(ensemble.weights),
        "edges": [edges.tolist() for edges in ensemble.edges],
        "missing": ensemble.trees[0].missing if ensemble.trees else 0,
        "trees": [
            {name: getattr(tree, name).tolist() for name in _KEPT} for tree in ensemble.trees
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def load(path: Path) -> Ensemble:
    """Read what `save` wrote.

    Raises:
        DataError: FL230, the file is not there, or is none of these.
    """
    types = {
        "feature": np.int64,
        "bin": np.int64,
        "missing_left": np.bool_,
        "left": np.int64,
        "value": np.float64,
        "count": np.int64,
        "gain": np.float64,
    }
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, {FORMAT} is known")
        trees = tuple(
            Tree(
                **{name: np.array(one[name], dtype=kind) for name, kind in types.items()},
                missing=int(content["missing"]),
            )
            for one in content["trees"]
        )
        edges = tuple(np.array(limits, dtype=np.float64) for limits in content["edges"])
        return Ensemble(float(content["base"]), trees, tuple(content["weights"]), edges)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        what = f"no ensemble of trees can be read: {problem}"
        raise DataError(Fault("FL230", what, str(path), "write it with `save`")) from None
