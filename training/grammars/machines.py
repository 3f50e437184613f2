"""Vehicles, gadgets, footwear, CAD parts and random constructive solids. NumPy only."""

from __future__ import annotations

import numpy as np

from training.grammars.clay import Clay, curve, ramp, turn
from training.sdf import Primitive, box, capsule, cylinder, ellipsoid, lathe, link, prism, shell, torus, tube

ACROSS = turn(0, 0, np.pi / 2)
"""Turns an axis along y into one along x: wheels."""


def car(c: Clay) -> None:
    u = c.u
    w, h, length = u(0.22, 0.34), u(0.09, 0.18), u(0.5, 0.75)
    rd = u(0.02, 0.09)
    c.add(box(w, h, length, rd))
    cab, top = length * u(0.35, 0.8), u(0.1, 0.3)
    z = length * u(-0.4, 0.2)
    if c.chance(0.6):
        s0, s1 = u(0.5, 0.95), u(0.5, 0.95)
        side = np.array(
            [(z - cab, h * 0.8), (z + cab, h * 0.8), (z + cab * s0, h + top), (z - cab * s1, h + top)], np.float32
        )
        c.add(prism(side, w * u(0.8, 0.98), 0.03), turn=turn(0, -np.pi / 2, 0), k=u(0.0, 0.06), paint=1)
    else:
        c.add(box(w * 0.97, top * 0.8, cab, 0.04), (0, h + top * 0.5, z), paint=1)
    r, t = u(0.09, 0.18), u(0.04, 0.09)
    for wz in (length * u(0.5, 0.75), -length * u(0.5, 0.75)):
        if c.chance(0.6):
            c.add(cylinder(r * 1.15, 0.2), (w, -h, wz), ACROSS, op="cut", fold="x")
        c.add(cylinder(r, t, 0.02), (w - t * u(-0.5, 0.8), -h * u(0.8, 1.2), wz), ACROSS, fold="x", paint=3)
    if c.chance(0.4):
        c.add(box(w * 1.02, 0.03, 0.05, 0.02), (0, -h * 0.5, length), paint=2)
    if c.chance(0.5):
        c.add(ellipsoid(0.05, 0.05, 0.03), (w * 0.7, 0, length), fold="x", paint=2)


def truck(c: Clay) -> None:
    """Trucks, buses, trains, carts: boxes on wheels."""
    u = c.u
    w, y, r = u(0.18, 0.3), 0.04, u(0.08, 0.16)
    c.add(box(w * 0.9, 0.04, 0.75))
    z = -0.72
    for i in range(c.count(1, 3)):
        n = u(0.15, 0.5)
        if z + 2 * n > 0.8:
            n = (0.8 - z) / 2
        if n < 0.06:
            break
        h = u(0.08, 0.32)
        c.add(box(w, h, n, u(0, 0.05)) if c.chance(0.8) else cylinder(w, h, 0.03), (0, y + h, z + n), paint=i)
        if c.chance(0.25):
            c.add(box(w * 0.85, h, n * 0.9), (0, y + h + 0.06, z + n), op="cut", paint=i)
        z += 2 * n + u(0, 0.06)
    if c.chance(0.3):
        c.add(cylinder(0.05, u(0.1, 0.25)), (0, 0.45, 0.5), paint=2)
    if c.chance(0.25):
        c.add(tube(curve((0, 0.3, 0.2), (0, 0.9, 0.4), (0, 0.3, 0.95), count=5), ramp(0.05, 0.03, 5)), paint=2)
    for wz in np.linspace(-0.55, 0.55, c.count(2, 4)) + u(-0.05, 0.05):
        c.add(cylinder(r, u(0.03, 0.07), 0.015), (w, -0.08, wz), ACROSS, fold="x", paint=3)


def plane(c: Clay) -> None:
    u = c.u
    r, length = u(0.07, 0.14), u(0.55, 0.75)
    if c.chance(0.4):
        c.add(ellipsoid(r, r * u(0.9, 1.3), length), (0, 0, -0.3 * length))
    else:
        c.add(capsule(0, u(0, 0.1), -1.9 * length, r, r * u(0.25, 0.8)), (0, 0, 0.6 * length))
    span, chord, t = u(0.45, 0.85), u(0.08, 0.2), u(0.015, 0.035)
    sweep, dihedral = u(-0.05, 0.4), u(-0.05, 0.15)
    wing = np.array(
        [(0, -chord), (0, chord), (span, chord * u(0.2, 0.9) - sweep), (span, -chord * u(0.2, 0.9) - sweep)], np.float32
    )
    lay = turn(np.pi / 2, 0, dihedral)
    y = u(-r, r) * 0.7
    z = length * u(-0.2, 0.3)
    c.add(prism(wing, t, 0.01), (0, y, z), lay, fold="x", k=0.02, paint=1)
    if c.chance(0.2):
        gap = u(0.2, 0.35)
        c.add(prism(wing, t, 0.01), (0, y + gap, z), lay, fold="x", paint=1)
        c.add(capsule(0, gap, 0, 0.018), (span * 0.7, y + 0.05, z), fold="x", paint=2)
    back = 0.6 * length - 2 * length * u(0.85, 0.95)
    tail = np.array([(0, -0.08), (0, 0.08), (u(0.15, 0.35), 0.0), (u(0.2, 0.3), -0.1)], np.float32)
    up = u(0, 0.25)
    c.add(prism(tail, t, 0.008), (0, up * c.count(0, 1), back), turn(np.pi / 2), fold="x", paint=1)
    c.add(prism(tail, t, 0.008), (0, 0, back), turn(0, 0, np.pi / 2) @ turn(np.pi / 2), paint=1)
    if c.chance(0.5):
        c.add(
            capsule(0, 0, -u(0.1, 0.3), u(0.035, 0.07)),
            (span * u(0.25, 0.6), y - 0.05, z + chord),
            fold="x",
            k=0.01,
            paint=2,
        )
    if c.chance(0.4):
        c.add(ellipsoid(r * 0.7, r * 0.8, 0.15), (0, r * 0.8, 0.3 * length), k=0.02, paint=3)
    if c.chance(0.35):
        c.add(box(u(0.15, 0.3), 0.02, 0.012), (0, 0, 0.6 * length + r), turn(0, 0, u(0, 3)), paint=3)
    if c.chance(0.35):
        c.add(capsule(0.05, -0.15, 0, 0.015), (0.05, 0, 0.15), fold="x", paint=2)
        c.add(cylinder(0.06, 0.02), (0.12, -0.2, 0.15), ACROSS, fold="x", paint=2)


def boat(c: Clay) -> None:
    u = c.u
    w, h, length = u(0.15, 0.3), u(0.12, 0.25), u(0.6, 0.8)
    c.add(ellipsoid(w, h, length))
    c.add(box(1, 0.5, 1), (0, 0.5 + h * u(-0.1, 0.3), 0), op="cut", paint=1)
    if c.chance(0.5):
        c.add(ellipsoid(w * 0.85, h * 0.8, length * 0.9), (0, 0.04, 0), op="cut", paint=1)
    for _ in range(c.count(0, 3)):
        c.add(box(w * u(0.3, 0.7), u(0.04, 0.15), u(0.08, 0.25), 0.01), (0, u(0, 0.15), u(-0.35, 0.3)), paint=2)
    if c.chance(0.6):
        m = u(0.5, 1.0)
        c.add(capsule(0, m, 0, 0.025), paint=3)
        if c.chance(0.7):
            c.add(
                prism(np.array([(0.04, 0.12), (length * 0.7, 0.15), (0.04, m * 0.95)], np.float32), 0.015, 0.008),
                turn=turn(0, np.pi / 2 * c.rng.choice([-1, 1]), 0),
                paint=3,
            )


def gadget(c: Clay) -> None:
    """Clocks, watches, cameras, binoculars, radios, headphones, lanterns, robots."""
    u = c.u
    kind = c.rng.choice(["clock", "watch", "camera", "twin", "box", "head", "robot", "lantern"])
    if kind == "clock":
        r, d = u(0.35, 0.5), u(0.08, 0.25)
        c.add(cylinder(r, d, 0.03) if c.chance(0.7) else box(r, r * u(0.7, 1), d, 0.06), turn=turn(np.pi / 2))
        c.add(torus(r * 0.95, u(0.02, 0.05)), (0, 0, d), turn(np.pi / 2), paint=1)
        if c.chance(0.6):
            c.add(ellipsoid(0.16, 0.12, 0.12), (r * 0.65, r * 0.85, 0), turn(0, 0, -0.6), fold="x", paint=2)
        c.add(capsule(0.08, -0.15, 0, 0.035), (r * 0.6, -r * 0.8, 0), fold="x", paint=2)
        c.add(box(0.015, r * 0.35, 0.02), (0, r * 0.3, d), paint=3)
    elif kind == "watch":
        r, w = u(0.3, 0.5), u(0.06, 0.14)
        c.add(shell(np.array([(r, -w), (r, w)], np.float32), u(0.02, 0.04)), turn=ACROSS)
        c.add(cylinder(w * u(1.2, 1.8), 0.06, 0.02), (0, 0, r), turn(np.pi / 2), paint=1)
        c.add(cylinder(0.03, 0.04), (w * 1.7, 0, r), ACROSS, paint=2)
    elif kind == "camera":
        w, h, d = u(0.35, 0.5), u(0.2, 0.35), u(0.1, 0.2)
        c.add(box(w, h, d, 0.04))
        r = h * u(0.5, 0.85)
        c.add(cylinder(r, u(0.1, 0.3), 0.02), (u(-0.1, 0.1), 0, d + 0.1), turn(np.pi / 2), paint=1)
        c.add(cylinder(r * 0.7, 0.2), (0, 0, d + 0.5), turn(np.pi / 2), op="cut", paint=2)
        c.add(box(0.12, 0.06, d * 0.7, 0.02), (0, h + 0.04, 0), paint=1)
        c.add(cylinder(0.05, 0.04), (w * 0.7, h + 0.03, 0), paint=2)
    elif kind == "twin":
        r, length, gap = u(0.12, 0.2), u(0.3, 0.5), u(0.15, 0.25)
        profile = np.array(
            [(0, -length), (r, -length), (r, 0), (r * 0.6, length * 0.4), (r * 0.65, length), (0, length)], np.float32
        )
        c.add(lathe(profile, 0.01), (gap, 0, 0), turn(-np.pi / 2), fold="x")
        c.add(box(gap, 0.05, length * u(0.2, 0.5), 0.02), paint=1)
        c.add(cylinder(0.04, length * 0.4), (0, 0.06, 0), turn(np.pi / 2), paint=2)
    elif kind == "box":
        w, h, d = u(0.3, 0.55), u(0.15, 0.5), u(0.08, 0.4)
        c.add(box(w, h, d, u(0.01, 0.08)))
        for _ in range(c.count(1, 4)):
            r = u(0.04, 0.18)
            c.add(
                cylinder(r, 0.05, 0.01) if c.chance(0.6) else box(r, 0.05, r * 0.6),
                (u(-w, w) * 0.7, u(-h, h) * 0.6, d),
                turn(np.pi / 2),
                paint=c.count(1, 3),
            )
        if c.chance(0.4):
            c.add(
                tube(
                    curve((-w * 0.8, h, 0), (-w * 0.8, h + 0.35, 0), (w * 0.8, h + 0.35, 0), (w * 0.8, h, 0), count=8),
                    ramp(0.03, 0.03, 8),
                ),
                paint=1,
            )
    elif kind == "head":
        r = u(0.35, 0.5)
        c.add(
            tube(
                curve((-r, -0.1, 0), (-r * 1.1, r * 1.6, 0), (r * 1.1, r * 1.6, 0), (r, -0.1, 0), count=10),
                ramp(u(0.03, 0.06), 0.045, 10),
            )
        )
        c.add(cylinder(u(0.13, 0.22), u(0.05, 0.1), 0.04), (r * 0.95, -0.15, 0), ACROSS, fold="x", paint=1)
    elif kind == "robot":
        c.add(box(u(0.2, 0.3), u(0.2, 0.3), 0.17, 0.03))
        c.add(box(u(0.14, 0.25), u(0.1, 0.2), 0.15, 0.04), (0, u(0.4, 0.5), 0), paint=1)
        c.add(ellipsoid(0.05, 0.05, 0.04), (0.09, 0.45, 0.16), fold="x", paint=3)
        r = u(0.04, 0.09)
        c.add(
            tube(
                np.array(
                    [(0.28, 0.15, 0), (u(0.35, 0.5), u(-0.2, 0.2), 0), (u(0.3, 0.6), u(-0.3, 0.3), u(0, 0.3))],
                    np.float32,
                ),
                ramp(r, r, 3),
            ),
            fold="x",
            paint=2,
        )
        c.add(box(r * 1.2, 0.22, r * 1.3, 0.02), (0.13, -0.4, 0), fold="x", paint=1)
        c.add(box(r * 1.6, 0.05, r * 2.2, 0.02), (0.13, -0.62, 0.05), fold="x", paint=2)
        if c.chance(0.5):
            c.add(capsule(0, 0.2, 0, 0.02), (0, 0.6, 0), paint=3)
    else:
        r, h, n = u(0.2, 0.32), u(0.25, 0.45), c.count(3, 8)
        c.add(cylinder(r * 1.15, 0.06, 0.02), (0, -h, 0))
        c.add(capsule(0, u(0.1, 0.25), 0, r * 1.1, 0.05), (0, h, 0), k=0.01)
        c.add(box(0.025, h, 0.025), (r, 0, 0), ring=n)
        c.add(ellipsoid(r * 0.5, h * 0.7, r * 0.5), paint=2)
        c.add(torus(0.15, 0.025), (0, h + 0.42, 0), turn(np.pi / 2), paint=1)


def shoe(c: Clay) -> None:
    u = c.u
    w, k = u(0.13, 0.2), u(0.05, 0.12)
    c.add(ellipsoid(w, u(0.12, 0.18), 0.3), (0, 0, 0.25))
    c.add(ellipsoid(w * 0.9, u(0.14, 0.22), 0.28), (0, 0.05, -0.2), k=k)
    high = u(0.1, 0.85)
    c.add(capsule(0, high, -u(-0.05, 0.08), w * 0.85, w * u(0.8, 1.2)), (0, 0.05, -0.25), k=k)
    c.add(box(1, 0.3, 1), (0, 0.05 + high + 0.3, 0), op="cut", paint=1)
    c.add(capsule(0, 0.8, 0, w * 0.65, w * 0.85), (0, 0.05 + high - u(0.05, 0.3), -0.25), op="cut", paint=1)
    c.add(box(1, 0.3, 1), (0, -0.38, 0), op="cut", paint=2)
    c.add(box(w * 0.95, u(0.02, 0.05), 0.5, 0.03), (0, -0.1, 0.05), k=0.02, paint=2)
    if c.chance(0.5):
        c.add(box(w * 0.8, u(0.04, 0.15), 0.12), (0, -0.16, -0.33), paint=2)


def cad(c: Clay) -> None:
    u = c.u
    kind = c.rng.choice(["plate", "bracket", "flange", "gear", "pipe", "block", "ring", "wedge"])
    if kind == "plate":
        w, d, t = u(0.4, 0.65), u(0.2, 0.6), u(0.03, 0.12)
        c.add(box(w, t, d, u(0, 0.02)))
        c.add(cylinder(u(0.03, 0.1), 0.5), (w * 0.75, 0, d * 0.7), op="cut", fold="xz", paint=1)
        if c.chance(0.6):
            r = u(0.08, 0.2)
            c.add(cylinder(r, u(0.1, 0.35)), (0, 0.1, 0), paint=1)
            c.add(cylinder(r * u(0.4, 0.75), 1.0), op="cut", paint=2)
    elif kind == "bracket":
        w, t, a, b = u(0.2, 0.5), u(0.03, 0.1), u(0.3, 0.6), u(0.3, 0.6)
        c.add(box(w, t, a), (0, 0, a))
        c.add(box(w, b, t), (0, b - t, 0), paint=c.count(0, 1))
        c.add(cylinder(u(0.05, 0.12), 0.3), (0, 0, a * 1.3), op="cut")
        c.add(cylinder(u(0.05, 0.12), 0.3), (w * c.count(0, 1) * 0.5, b, 0), turn(np.pi / 2), op="cut", fold="x")
        if c.chance(0.6):
            c.add(
                prism(np.array([(0, 0), (a * 1.2, 0), (0, b * 1.2)], np.float32), t * 0.7),
                (w * u(0, 0.8), 0, 0),
                turn(0, -np.pi / 2, 0),
                fold="x",
            )
    elif kind == "flange":
        r, h = u(0.3, 0.55), u(0.04, 0.12)
        c.add(cylinder(r, h, 0.01))
        rr = r * u(0.3, 0.6)
        c.add(cylinder(rr, u(0.15, 0.5)), (0, u(0.1, 0.3), 0), paint=1)
        c.add(cylinder(rr * u(0.5, 0.85), 1.5), op="cut")
        c.add(cylinder(u(0.03, 0.07), 0.5), (r * 0.8, 0, 0), ring=c.count(3, 8), op="cut")
    elif kind == "gear":
        r, h, n = u(0.35, 0.5), u(0.06, 0.25), c.count(6, 18)
        c.add(cylinder(r, h))
        c.add(box(u(0.06, 0.12), h, r * 2.0 / n), (r, 0, 0), ring=n)
        c.add(cylinder(r * u(0.15, 0.4), 1), op="cut")
        if c.chance(0.4):
            c.add(cylinder(r * 0.18, 1), (r * 0.6, 0, 0), ring=c.count(3, 6), op="cut")
    elif kind == "pipe":
        r = u(0.1, 0.2)
        path = curve(
            (-0.6, u(-0.3, 0.3), 0),
            (0, u(-0.5, 0.5), u(-0.4, 0.4)),
            (0.1, 0.3, 0),
            (u(0.2, 0.6), u(-0.5, 0.6), 0),
            count=8,
        )
        c.add(tube(path, ramp(r, r, 8)))
        for p, q in ((path[0], path[1]), (path[-1], path[-2])):
            out = (p - q) / np.linalg.norm(p - q)
            c.add(capsule(*(out * 0.02), r * 1.3), p, paint=1)
            c.add(capsule(*(out * 0.5), r * 0.7), p - out * 0.05, op="cut", paint=2)
    elif kind == "block":
        c.add(box(u(0.3, 0.6), u(0.2, 0.5), u(0.3, 0.6), u(0, 0.03)))
        for _ in range(c.count(1, 4)):
            at = (u(-0.5, 0.5), u(-0.4, 0.5), u(-0.5, 0.5))
            lay = turn(*(np.pi / 2 * c.rng.integers(0, 2, 3)))
            prim: Primitive = (
                cylinder(u(0.06, 0.25), u(0.2, 1)) if c.chance(0.5) else box(u(0.06, 0.3), u(0.1, 0.5), u(0.06, 0.6))
            )
            c.add(
                prim,
                at,
                lay,
                op="cut" if c.chance(0.65) else "add",
                fold="x" if c.chance(0.3) else "",
                paint=c.count(0, 2),
            )
    elif kind == "ring":
        r, t = u(0.3, 0.5), u(0.06, 0.2)
        c.add(
            torus(r, t)
            if c.chance(0.6)
            else lathe(np.array([(r - t, -t), (r + t, -t), (r + t, t), (r - t, t)], np.float32), 0.01)
        )
        if c.chance(0.4):
            c.add(capsule(r, 0, 0, t * 0.4), ring=c.count(2, 6), paint=1)
            c.add(cylinder(t, t * 1.2), paint=2)
    else:
        a, b = u(0.3, 0.6), u(0.2, 0.6)
        side = np.array([(-a, -b), (a, -b), (a * u(-0.5, 1), b), (-a, b * u(0.0, 1))], np.float32)
        c.add(prism(side, u(0.15, 0.5), u(0, 0.02)))
        for _ in range(c.count(0, 3)):
            c.add(cylinder(u(0.05, 0.15), 1), (u(-a, a) * 0.7, u(-b, b) * 0.6, 0), turn(np.pi / 2), op="cut", paint=1)


def solids(c: Clay) -> None:
    """Random unions and differences of primitives, in the spirit of Zeroverse (LRM-Zero, arXiv 2406.09371)."""
    u = c.u
    for i in range(c.count(1, 8)):
        s = u(0.12, 0.45) if i else u(0.25, 0.5)
        at = c.rng.normal(0, 0.2, 3) * (i > 0)
        lay = turn(u(0, 3), u(0, 3), u(0, 3)) if c.chance(0.6) else None
        op = "cut" if i and c.chance(0.25) else "add"
        k = u(0.02, 0.15) if c.chance(0.35) else 0.0
        c.add(
            _any(c, s),
            at,
            lay,
            op,
            k,
            "x" if c.chance(0.35) else "",
            c.count(3, 6) if i and c.chance(0.1) else 1,
            c.count(0, 3),
        )


def _any(c: Clay, s: float) -> Primitive:
    u = c.u
    which = c.count(0, 8)
    if which == 0:
        return ellipsoid(s * u(0.4, 1), s * u(0.4, 1), s * u(0.4, 1))
    if which == 1:
        return box(s * u(0.15, 1), s * u(0.15, 1), s * u(0.15, 1), s * u(0, 0.2))
    if which == 2:
        return cylinder(s * u(0.2, 1), s * u(0.1, 1.2), s * u(0, 0.1))
    if which == 3:
        return torus(s * u(0.6, 1), s * u(0.12, 0.35))
    if which == 4:
        return capsule(0, s * u(0.5, 2), 0, s * u(0.15, 0.6), s * u(0.05, 0.6))
    if which == 5:
        n = c.count(3, 6)
        a = np.arange(n) * 2 * np.pi / n + u(0, 1)
        return prism(np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32) * np.float32(s), s * u(0.1, 1), 0.01)
    if which == 6:
        return shell(curve((0.001, -s), (s * u(0.5, 2), -s), (s * u(0.3, 1), s * u(0, 1)), count=7), u(0.018, 0.05))
    if which == 7:
        return link(s * u(0.3, 0.7), s * u(0, 0.7), s * u(0.1, 0.25))
    return box(s, u(0.018, 0.04), s * u(0.4, 1.2), 0.01)


def rocket(c: Clay) -> None:
    """Held out: only the test generator makes rockets."""
    u = c.u
    r, h = u(0.12, 0.22), u(0.4, 0.6)
    profile = curve((r * u(0.6, 1), -h), (r * 1.4, -h * 0.2), (r * 1.2, h * 0.5), (0.01, h * 1.3), count=10)
    c.add(lathe(np.concatenate([[(0, -h)], profile, [(0, h)]]).astype(np.float32), 0.01))
    fin = np.array([(0, 0.3), (u(0.2, 0.4), -0.1), (u(0.2, 0.4), -0.3), (0, -0.15)], np.float32)
    c.add(prism(fin, 0.02, 0.008), (r * 0.7, -h * 0.7, 0), ring=c.count(3, 4), paint=1)
    c.add(torus(r * 0.45, 0.03), (0, h * 0.2, r * 1.1), turn(np.pi / 2), paint=2)
    c.add(cylinder(r * 0.5, 0.1), (0, -h - 0.05, 0), paint=3)


MACHINES = {
    "car": (car, 6.0),
    "truck": (truck, 3.0),
    "plane": (plane, 5.0),
    "boat": (boat, 2.5),
    "gadget": (gadget, 7.0),
    "shoe": (shoe, 3.0),
    "cad": (cad, 7.0),
    "solids": (solids, 14.0),
}
