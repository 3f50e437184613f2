"""Writes the ONNX graphs of training/INTERFACE.md: float32 arithmetic, weights stored as float16 (the student's: int8).

    python -m training.export RUN src/meshkiln/engines/vecset/weights [--note "..."]

RUN holds autoencoder.pt, flow.pt and, when the flow has been distilled, student.pt; the averaged weights are taken.
Every graph is run against torch before it counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from blake3 import blake3
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from meshkiln.engines.vecset.crop import FILL, SIZE
from training.autoencoder import SHARPNESS, Autoencoder
from training.flow import Flow
from training.patches import CELLS, Patches
from training.student import GRID, Student

OPSET = 18
SMALL = 256
"""Tensors up to this size stay float32: halving them saves nothing."""


class _Encoder(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.picture = flow.picture

    def forward(self, image: Tensor) -> Tensor:
        return self.picture(image)


class _Latents(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.a = autoencoder

    def forward(self, z: Tensor) -> Tensor:
        return self.a.features(z * self.a.latent_std + self.a.latent_mean)


class _Query(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.a = autoencoder

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        return self.a.query(features, points)


class _Patches(nn.Module):
    """One method of the patch decoder."""

    def __init__(self, patches: Patches, method: str) -> None:
        super().__init__()
        self.patches, self.method = patches, method

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = getattr(self.patches, self.method)(*inputs)
        return out


class _Blend(nn.Module):
    def forward(self, held: Tensor, corners: Tensor, table: Tensor) -> Tensor:
        return held[corners].flatten(1) @ table


class _ShapeEncoder(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.a = autoencoder

    def forward(self, surface: Tensor) -> Tensor:
        return (self.a.encode(surface)[0] - self.a.latent_mean) / self.a.latent_std


def halve(model: onnx.ModelProto) -> None:
    """Stores large float32 weights as float16 behind a Cast; a runtime folds the Cast when it loads."""
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) <= SMALL:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name + ".half")
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
        casts.append(
            helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT, name=tensor.name + ".cast")
        )
    for i, node in enumerate(casts):
        graph.node.insert(i, node)


def quarter(model: onnx.ModelProto) -> None:
    """Stores large float32 matrices as int8 with a scale per column; a runtime folds Cast and Mul when it loads."""
    graph = model.graph
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) <= 64 * SMALL:
            continue
        matrix = numpy_helper.to_array(tensor)
        scale = np.maximum(np.abs(matrix).max(axis=0, keepdims=True) / 127, 1e-12).astype(np.float32)
        name, whole = tensor.name, np.round(matrix / scale).astype(np.int8)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(whole, name + ".int8"))
        graph.initializer.append(numpy_helper.from_array(scale, name + ".scale"))
        nodes.append(
            helper.make_node("Cast", [name + ".int8"], [name + ".whole"], to=TensorProto.FLOAT, name=name + ".c")
        )
        nodes.append(helper.make_node("Mul", [name + ".whole", name + ".scale"], [name], name=name + ".m"))
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)


def share(model: onnx.ModelProto) -> None:
    """Keeps one copy of the constants that every block repeats (the squared distances)."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute[0].t.raw_data) > 4 * SMALL:
            name = first.setdefault(node.attribute[0].SerializeToString(), node.output[0])
            if name != node.output[0]:
                same[node.output[0]] = name
                continue
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
        kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def write(
    module: nn.Module,
    inputs: dict[str, Tensor],
    output: str,
    axes: dict[str, dict[int, str]],
    path: Path,
    shrink: Callable[[onnx.ModelProto], None] = halve,
) -> float:
    """Exports, shrinks, checks against torch at another batch size (of what has one); the largest difference."""
    module.eval()
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(str(path))
    share(model)
    shrink(model)
    if shrink is not halve:
        halve(model)
    model.producer_version = ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    again = {k: torch.cat([v, v.flip(0), v]) if 0 in axes.get(k, {}) else v for k, v in inputs.items()}
    with torch.no_grad():
        want = module(*again.values()).numpy()
    got = session.run(None, {k: v.numpy() for k, v in again.items()})[0]
    return float(np.abs(got - want).max())


def write_patches(weights: dict[str, Tensor], features: Tensor, out: Path) -> dict[str, float]:
    """The patch decoder's three graphs: what nodes hold, what it counts for, and their product."""
    patches = Patches().eval()
    patches.load_state_dict(weights)
    points, offsets = torch.rand(2, 77, 3) * 2 - 1, torch.rand(27, 3)
    with torch.no_grad():
        held, table = patches.nodes(features, points)[0], patches.basis(offsets)
    count = {0: "batch", 1: "count"}
    return {
        "nodes": write(
            _Patches(patches, "nodes"),
            {"features": features, "points": points},
            "held",
            {"features": {0: "batch"}, "points": count, "held": count},
            out / "nodes.onnx",
        ),
        "basis": write(
            _Patches(patches, "basis"),
            {"offsets": offsets},
            "table",
            {"offsets": {0: "places"}, "table": {1: "places"}},
            out / "basis.onnx",
        ),
        "blend": write(
            _Blend(),
            {"held": held, "corners": torch.randint(0, len(held), (5, 8)), "table": table},
            "logits",
            {
                "held": {0: "nodes"},
                "corners": {0: "cells"},
                "table": {1: "places"},
                "logits": {0: "cells", 1: "places"},
            },
            out / "blend.onnx",
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    states = {name: torch.load(args.run / f"{name}.pt", weights_only=True) for name in ("autoencoder", "flow")}
    autoencoder, flow = Autoencoder().eval(), Flow().eval()
    autoencoder.load_state_dict(states["autoencoder"]["average"])
    flow.load_state_dict(states["flow"]["average"])
    a, f = autoencoder.sizes, flow.sizes
    count, tokens = len(autoencoder.anchors), f.side**2
    z, t = torch.randn(2, count, a.latent_dim), torch.rand(2)
    surface = torch.cat(
        [torch.rand(2, 2048, 3) * 1.4 - 0.7, nn.functional.normalize(torch.randn(2, 2048, 3), dim=-1)], -1
    )
    with torch.no_grad():
        features = _Latents(autoencoder)(z)
    batch = {0: "batch"}
    worst = {
        "encoder": write(
            _Encoder(flow),
            {"image": torch.rand(2, 4, f.size, f.size)},
            "tokens",
            {"image": batch, "tokens": batch},
            args.out / "encoder.onnx",
        ),
        "flow": write(
            flow,
            {"x": z, "t": t, "tokens": torch.randn(2, tokens, f.width)},
            "velocity",
            dict.fromkeys(("x", "t", "tokens", "velocity"), batch),
            args.out / "flow.onnx",
        ),
        "latents": write(
            _Latents(autoencoder), {"z": z}, "features", {"z": batch, "features": batch}, args.out / "latents.onnx"
        ),
        "query": write(
            _Query(autoencoder),
            {"features": features, "points": torch.rand(2, 77, 3) * 2 - 1},
            "logits",
            {"features": batch, "points": {0: "batch", 1: "count"}, "logits": {0: "batch", 1: "count"}},
            args.out / "query.onnx",
        ),
        "shape_encoder": write(
            _ShapeEncoder(autoencoder),
            {"surface": surface},
            "z",
            {"surface": {0: "batch", 1: "count"}, "z": batch},
            args.out / "shape_encoder.onnx",
            quarter,
        ),
    }
    if (args.run / "student.pt").exists():
        states["student"] = torch.load(args.run / "student.pt", weights_only=True)
        student = Student().eval()
        student.load_state_dict(states["student"]["average"])
        worst["student"] = write(
            student,
            {"x": z, "t": t, "d": 1 - t, "tokens": torch.randn(2, tokens, f.width)},
            "velocity",
            dict.fromkeys(("x", "t", "d", "tokens", "velocity"), batch),
            args.out / "student.onnx",
            quarter,
        )
    if (args.run / "patches.pt").exists():
        states["patches"] = torch.load(args.run / "patches.pt", weights_only=True)
        worst |= write_patches(states["patches"]["average"], features, args.out)
    np.save(args.out / "null.npy", flow.null_tokens().detach().numpy().astype(np.float32))
    files = sorted(p for p in args.out.iterdir() if p.suffix in (".onnx", ".npy"))
    manifest = {
        "format": 1,
        "licence": "Apache-2.0",
        "image_size": SIZE,
        "fill": FILL,
        "box": 1.0,
        "sharpness": SHARPNESS,
        "latents": count,
        "latent_dim": a.latent_dim,
        "tokens": tokens,
        "token_dim": f.width,
        "features": 2 * a.width,
        "parameters": {
            "autoencoder": sum(p.numel() for p in autoencoder.parameters()),
            "flow": sum(p.numel() for p in flow.parameters()),
        },
        "trained": {k: {"steps": s["steps"], "hours": round(s["spent"] / 3600, 2)} for k, s in states.items()},
        **({"student": {**states["student"]["extra"], "grid": GRID}} if "student" in states else {}),
        **({"patches": {"cells": CELLS}} if "patches" in states else {}),
        "note": args.note,
        "files": {p.name: blake3(p.read_bytes()).hexdigest() for p in files},
    }
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print({k: f"{v:.2e}" for k, v in worst.items()}, f"{sum(p.stat().st_size for p in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
