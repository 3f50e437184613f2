"""Vessels, furniture, tools, food, plants, houses. Things stand along y. NumPy only."""

from __future__ import annotations

import numpy as np

from training.grammars.clay import Clay, curve, ramp, turn
from training.sdf import box, capsule, cylinder, ellipsoid, lathe, link, prism, shell, torus, tube


def vessel(c: Clay) -> None:
    """Hollow, thin-walled: mugs, bowls, vases, glasses, teapots, buckets, pans."""
    u = c.u
    t = u(0.015, 0.05)
    kind = c.rng.choice(["mug", "glass", "bowl", "vase", "pot", "bucket"], p=[0.25, 0.2, 0.12, 0.16, 0.19, 0.08])
    if kind == "mug":
        r, h = u(0.25, 0.45), u(0.25, 0.55)
        profile = curve((0.001, -h), (r * u(0.9, 1.4), -h), (r, -h * 0.6), (r * u(0.85, 1.15), h), count=9)
        if c.chance(0.5):
            profile = np.array([(0.001, -h), (r * u(0.75, 1), -h), (r, h)], np.float32)
        c.add(shell(profile, t))
        if c.chance(0.85):
            reach, drop = h * u(0.3, 0.5), h * u(0.05, 0.3)
            c.add(link(reach, drop, u(0.025, 0.06)), (r + reach * u(-0.1, 0.15), u(-0.1, 0.1), 0), op="add", paint=1)
            inner = profile.copy()
            inner[:, 0] = np.maximum(inner[:, 0] - t, 0.001)
            closed = np.concatenate([inner, [[0.001, float(profile[-1, 1]) + 0.3]]]).astype(np.float32)
            closed[-2, 1] += 0.3
            c.add(lathe(closed), (0, t, 0), op="cut", paint=1)
    elif kind == "glass":
        r, h, stem, foot = u(0.2, 0.38), u(0.25, 0.5), u(0.1, 0.6), u(0.16, 0.32)
        bowl = curve((0.001, 0), (r * u(1.2, 1.9), 0), (r * u(0.7, 1.3), h * 0.7), (r * u(0.7, 1.1), h), count=9)
        c.add(shell(bowl, t))
        c.add(capsule(0, -stem, 0, u(0.025, 0.05)), k=0.03)
        c.add(
            lathe(
                np.array([(0, -stem), (foot, -stem), (foot, -stem + 0.03), (0.0, -stem + u(0.04, 0.1))], np.float32),
                0.01,
            ),
            k=0.02,
        )
    elif kind == "bowl":
        r, h = u(0.4, 0.6), u(0.06, 0.4)
        c.add(shell(curve((0.001, -h), (r * u(0.4, 1.2), -h), (r, 0), (r * u(1, 1.2), u(0, 0.1)), count=9), t))
        if c.chance(0.4):
            c.add(cylinder(r * u(0.3, 0.6), 0.05, 0.01), (0, -h - 0.03, 0), paint=1)
    elif kind == "vase":
        p = curve(
            (0.001, -0.6),
            (u(0.2, 0.6), -0.62),
            (u(0.1, 0.9), u(-0.3, 0.1)),
            (u(0.02, 0.3), u(0.1, 0.5)),
            (u(0.1, 0.4), 0.6),
            count=12,
        )
        c.add(shell(p, t))
        if c.chance(0.35):
            c.add(
                link(u(0.12, 0.2), u(0, 0.15), u(0.025, 0.05)), (u(0.25, 0.35), u(0, 0.2), 0), fold="x", k=0.02, paint=1
            )
    elif kind == "pot":
        r, h = u(0.3, 0.45), u(0.22, 0.4)
        c.add(ellipsoid(r, h, r) if c.chance(0.6) else cylinder(r, h * 0.85, 0.06))
        tip = (r + u(0.15, 0.35), u(0.05, 0.45), 0)
        c.add(
            tube(
                curve((r * 0.7, -h * u(-0.2, 0.5), 0), (r + 0.2, -h * 0.4, 0), tip), ramp(u(0.08, 0.13), u(0.03, 0.06))
            ),
            k=0.04,
        )
        if c.chance(0.65):
            c.add(link(u(0.13, 0.2), u(0.02, 0.15), u(0.03, 0.055)), (-r - 0.05, 0.0, 0), k=0.01, paint=1)
            c.add(ellipsoid(r * 0.85, h * 0.8, r * 0.85), paint=0)
        else:
            top = u(0.25, 0.5)
            c.add(
                tube(
                    curve(
                        (-r * 0.8, h * 0.5, 0),
                        (-r * 0.8, h + top * 1.3, 0),
                        (r * 0.8, h + top * 1.3, 0),
                        (r * 0.8, h * 0.5, 0),
                        count=9,
                    ),
                    ramp(0.035, 0.035, 9),
                ),
                k=0.01,
                paint=1,
            )
        c.add(ellipsoid(r * u(0.4, 0.65), u(0.04, 0.12), r * 0.6), (0, h * 0.92, 0), k=0.01, paint=c.count(0, 1))
        c.add(ellipsoid(*(u(0.04, 0.09),) * 3), (0, h + 0.1, 0), k=0.01, paint=2)
    else:
        r, h, flare = u(0.25, 0.4), u(0.25, 0.45), u(1.0, 1.5)
        c.add(shell(np.array([(0.001, -h), (r, -h), (r * flare, h)], np.float32), t))
        c.add(
            tube(
                curve(
                    (-r * flare, h, 0),
                    (-r * flare, h + u(0.3, 0.8), 0),
                    (r * flare, h + 0.5, 0),
                    (r * flare, h, 0),
                    count=10,
                ),
                ramp(0.022, 0.022, 10),
            ),
            paint=1,
        )


def turned(c: Clay) -> None:
    """Solids of revolution: bottles, chess pieces, bulbs, knobs, tops, apples."""
    u = c.u
    n = c.count(4, 8)
    ys = np.linspace(-0.6, 0.6, n)
    rs = np.asarray([u(0.08, 0.42) for _ in range(n)])
    if c.chance(0.5):
        rs = np.sort(rs)[:: 1 if c.chance(0.3) else -1]
    if c.chance(0.3):
        rs[n // 2 :] = u(0.06, 0.15)
    smooth = c.chance(0.6)
    side = np.stack([rs, ys], 1)
    side = curve(*side, count=12) if smooth else side
    profile = np.concatenate([[(0.0, -0.6)], side, [(0.0, 0.6)]]).astype(np.float32)
    c.add(lathe(profile, u(0, 0.03)))
    if c.chance(0.4):
        c.add(cylinder(float(rs[-1]) * u(1, 1.3), u(0.03, 0.15), 0.01), (0, 0.6, 0), paint=1)
    if c.chance(0.25):
        c.add(capsule(u(-0.1, 0.2), u(0.1, 0.3), 0, 0.03, 0.02), (0, 0.6, 0), k=0.02, paint=2)
    if c.chance(0.15):
        c.add(ellipsoid(0.15, 0.02, 0.08), (0.15, 0.7, 0), turn(0, 0, u(0, 0.6)), paint=3)
    if c.chance(0.2):
        c.add(torus(float(rs[n // 2]) + 0.02, u(0.015, 0.05)), (0, u(-0.3, 0.3), 0), paint=2)


def fruit(c: Clay) -> None:
    u = c.u
    r, h = u(0.4, 0.55), u(0.35, 0.6)
    c.add(ellipsoid(r, h, r))
    if c.chance(0.5):
        c.add(ellipsoid(r * u(0.5, 0.8), h * 0.6, r * u(0.5, 0.8)), (0, u(0.2, 0.5), 0), k=0.2)
    if c.chance(0.6):
        c.add(ellipsoid(0.12, 0.1, 0.12), (0, h, 0), op="cut", k=0.15)
    if c.chance(0.4):
        for i in range(c.count(4, 7)):
            a = i * 2.4
            c.add(
                ellipsoid(0.05, u(0.15, 0.35), 0.02),
                (0.12 * np.cos(a), h + 0.1, 0.12 * np.sin(a)),
                turn(0.5 * np.sin(a), 0, -0.5 * np.cos(a)),
                paint=1,
            )
    else:
        c.add(capsule(u(-0.1, 0.1), u(0.1, 0.25), 0, u(0.02, 0.05), u(0.02, 0.05)), (0, h - 0.1, 0), k=0.02, paint=2)


def chair(c: Clay) -> None:
    u = c.u
    w, d, t = u(0.25, 0.4), u(0.25, 0.4), u(0.02, 0.06)
    leg, r = u(0.25, 0.5), u(0.018, 0.045)
    c.add(box(w, t, d, u(0, t)) if c.chance(0.75) else cylinder(w, t, t * 0.5), paint=c.count(0, 1))
    if c.chance(0.8):
        splay = u(-0.02, 0.1)
        c.add(
            capsule(splay, -leg, splay, r, r * u(0.6, 1)) if c.chance(0.6) else box(r, leg, r),
            (w - r - 0.03, -0.0 if splay else -leg, d - r - 0.03),
            fold="xz",
        )
        if c.chance(0.4):
            c.add(box(w, r * 0.6, r * 0.6), (0, -leg * u(0.5, 0.9), d - r), fold="xz")
    else:
        c.add(capsule(0, -leg, 0, r * 1.3))
        c.add(capsule(w, -0.05, 0, r), (0, -leg, 0), ring=c.count(3, 5))
    if c.chance(0.85):
        h, lean = u(0.25, 0.55), u(0, 0.25)
        kind = c.rng.random()
        if kind < 0.5:
            c.add(box(w * u(0.8, 1), h / 2, t * u(0.6, 1.2), 0.015), (0, h / 2 + t, -d + t), turn(-lean), paint=1)
        else:
            c.add(capsule(0, h, -lean * h, r), (w - r, 0, -d + r), fold="x")
            for y in np.linspace(0.4, 1, c.count(1, 4)):
                c.add(box(w, r * u(0.6, 2), r * 0.6), (0, h * y, -d + r - lean * h * y), paint=1)
            if kind > 0.8:
                c.add(capsule(0, h, -lean * h, r * 0.6), (w * 0.35, 0, -d + r), fold="x")
    if c.chance(0.35):
        h = u(0.12, 0.25)
        c.add(box(r * 1.2, r, d * 0.9, r * 0.4), (w, h, 0), fold="x")
        c.add(capsule(0, h, 0, r * 0.8), (w, 0, d * 0.8), fold="x")


def furniture(c: Clay) -> None:
    """Tables, sofas, beds, shelves, cabinets, crates."""
    u = c.u
    kind = c.rng.choice(["table", "sofa", "shelf", "cabinet", "bed", "crate"])
    w, h, d = u(0.3, 0.65), u(0.2, 0.6), u(0.2, 0.5)
    t = u(0.018, 0.05)
    if kind == "table":
        c.add(box(w, t, d, t * 0.5) if c.chance(0.65) else cylinder(w, t, t * 0.5), (0, h, 0), paint=1)
        if c.chance(0.7):
            inset = u(0.8, 0.97) if len(c.parts) else 1.0
            c.add(
                capsule(u(-0.05, 0.05), -2 * h * 0.9, 0, t * u(0.8, 1.6), t * u(0.6, 1.2)),
                (w * inset * 0.7, h, d * inset * 0.7),
                fold="xz",
            )
        else:
            c.add(capsule(0, -1.6 * h, 0, t * u(1.2, 3)), (0, h, 0))
            c.add(cylinder(w * u(0.4, 0.7), t), (0, -0.7 * h, 0))
        if c.chance(0.3):
            c.add(box(w * 0.8, t * 0.7, d * 0.75), (0, -h * u(0, 0.5), 0))
    elif kind == "sofa":
        c.add(box(w, 0.14, d, 0.05), (0, 0, 0))
        c.add(box(w, u(0.15, 0.3), 0.1, 0.06), (0, 0.2, -d + 0.05), turn(-u(0, 0.2)), k=0.02)
        c.add(box(u(0.06, 0.12), u(0.12, 0.22), d, 0.05), (w, 0.1, 0), fold="x", k=0.02)
        for _ in range(c.count(0, 2)):
            c.add(box(0.14, 0.14, 0.05, 0.05), (u(-w, w) * 0.6, 0.25, -d * 0.3), turn(-0.3, u(-0.4, 0.4)), paint=1)
        if c.chance(0.7):
            c.add(cylinder(0.03, 0.08), (w * 0.85, -0.2, d * 0.8), fold="xz", paint=2)
    elif kind == "shelf":
        c.add(box(t, h, d * 0.6), (w, 0, 0), fold="x")
        for y in np.linspace(-1, 1, c.count(2, 5)):
            c.add(box(w, t, d * 0.6), (0, h * y, 0))
        if c.chance(0.5):
            c.add(box(w, h, t * 0.5), (0, 0, -d * 0.6), paint=1)
        for _ in range(c.count(0, 3)):
            c.add(box(u(0.03, 0.15), u(0.05, 0.15), 0.1), (u(-w, w) * 0.7, u(-h, h) * 0.8, 0), paint=2)
    elif kind == "cabinet":
        c.add(box(w, h, d, u(0, 0.04)))
        n = c.count(1, 4)
        for i in range(n):
            y = h * ((2 * i + 1) / n - 1)
            c.add(box(w * 0.9, h / n * 0.85, 0.03, 0.01), (0, y, d), paint=1)
            c.add(ellipsoid(u(0.03, 0.1), 0.03, 0.03), (0, y, d + 0.06), paint=2)
        c.add(box(0.04, 0.08, 0.04), (w * 0.85, -h - 0.06, d * 0.8), fold="xz")
    elif kind == "bed":
        c.add(box(w, 0.1, 0.7, 0.05), paint=1)
        c.add(box(w, u(0.2, 0.4), 0.04, 0.02), (0, 0.1, -0.7))
        c.add(box(w * 0.4, 0.06, 0.12, 0.05), (w * 0.45, 0.14, -0.5), fold="x", paint=2)
        c.add(box(0.04, 0.15, 0.04), (w - 0.04, -0.15, 0.62), fold="xz")
    else:
        c.add(box(w, h, d, 0.02))
        c.add(box(w - 2 * t, h, d - 2 * t), (0, u(0.05, 0.3), 0), op="cut", paint=1)
        if c.chance(0.5):
            for y in (-0.6, 0.6):
                c.add(box(w + t * 0.5, h * 0.12, d + t * 0.5), (0, h * y, 0), paint=2)
            c.add(box(w - 2 * t, h, d - 2 * t), (0, 0.2, 0), op="cut", paint=1)


def tool(c: Clay) -> None:
    u = c.u
    kind = c.rng.choice(["hammer", "driver", "wrench", "spoon", "brush", "pan", "axe"])
    length, r = u(0.4, 0.65), u(0.03, 0.075)
    if kind == "hammer":
        c.add(capsule(0, -length * 1.5, 0, r * u(0.7, 1), r * u(1, 1.5)), (0, length * 0.75, 0))
        c.add(cylinder(u(0.08, 0.15), u(0.15, 0.3), 0.02), (0, length * 0.75, 0), turn(0, 0, np.pi / 2), paint=1)
        if c.chance(0.5):
            c.add(capsule(u(0.15, 0.35), -u(0, 0.2), 0, 0.07, 0.015), (0.15, length * 0.75, 0), k=0.03, paint=1)
    elif kind == "driver":
        c.add(capsule(0, u(0.3, 0.5), 0, r * 1.6, r * 1.4))
        c.add(cylinder(r * 0.5, length * 0.6), (0, -length * 0.6, 0), paint=1)
        if c.chance(0.5):
            c.add(box(r, 0.05, 0.015), (0, -length * 1.2, 0), paint=1)
    elif kind == "wrench":
        c.add(box(r * 1.2, length, 0.04, 0.02))
        for y, o in ((length, u(-0.5, 0.5)), (-length, u(-0.5, 0.5))):
            ro = u(0.12, 0.2)
            c.add(cylinder(ro, 0.05, 0.01), (0, y, 0), turn(np.pi / 2), k=0.04)
            c.add(
                box(ro * 0.5, ro, 0.2), (np.sin(o) * ro * 0.7, y + np.sign(y) * ro * 0.8, 0), turn(0, 0, -o), op="cut"
            )
    elif kind == "spoon":
        c.add(tube(curve((0, -0.7, 0), (0, -0.1, u(0, 0.2)), (0, 0.25, -0.05)), ramp(u(0.03, 0.06), 0.02)))
        a = u(0.12, 0.22)
        c.add(ellipsoid(a, a * u(1, 1.5), 0.07), (0, 0.35, -0.03), k=0.03, paint=1)
        c.add(ellipsoid(a * 0.85, a * 1.2, 0.07), (0, 0.35, 0.03), op="cut")
    elif kind == "brush":
        c.add(capsule(0, -0.7, 0, r, r * 1.3), k=0.02)
        w = u(0.06, 0.25)
        c.add(box(w, 0.08, 0.06, 0.02), (0, 0.05, 0), paint=1)
        c.add(box(w * 0.95, u(0.1, 0.3), 0.045, 0.02), (0, 0.2, 0), paint=2)
    elif kind == "pan":
        a, h = u(0.3, 0.45), u(0.06, 0.25)
        c.add(shell(np.array([(0.001, 0), (a * 0.85, 0), (a, h)], np.float32), u(0.018, 0.03)))
        c.add(capsule(u(0.35, 0.65), u(0.0, 0.15), 0, 0.03, 0.04), (a, h * 0.8, 0), paint=1)
    else:
        c.add(capsule(0, -1.1, 0, r, r), (0, 0.5, 0), paint=1)
        blade = np.array(
            [(0, -0.08), (u(0.2, 0.35), -u(0.1, 0.25)), (u(0.25, 0.38), u(0.1, 0.25)), (0, 0.08)], np.float32
        )
        c.add(prism(blade, u(0.015, 0.05), 0.01), (0, 0.4, 0), fold="x" if c.chance(0.3) else "")


def food(c: Clay) -> None:
    u = c.u
    r, y = u(0.35, 0.5), -0.3
    for i in range(c.count(2, 6)):
        h = u(0.03, 0.14)
        s = r * u(0.85, 1.12)
        c.add(cylinder(s, h, min(h, 0.05) * u(0.3, 0.95)), (u(-0.02, 0.02), y + h, 0), paint=i % 4)
        y += 2 * h
    if c.chance(0.6):
        c.add(ellipsoid(r * u(0.6, 1.05), u(0.1, 0.35), r), (0, y, 0), k=0.02, paint=0)
        c.add(box(1, 0.4, 1), (0, -0.72, 0), op="cut")
    for _ in range(c.count(0, 4)):
        a = u(0, 6.28)
        c.add(ellipsoid(*(u(0.03, 0.09),) * 3), (np.cos(a) * r * 0.6, y + u(0, 0.1), np.sin(a) * r * 0.6), paint=3)
    if c.chance(0.2):
        c.add(
            prism(np.array([(0, 0), (1.2, u(-0.8, 0.5)), (1.2, 0.9)], np.float32), 1.0),
            turn=turn(np.pi / 2),
            op="cut",
            paint=1,
        )


def plant(c: Clay) -> None:
    u = c.u
    if c.chance(0.5):
        r = u(0.15, 0.28)
        c.add(lathe(np.array([(0, -0.7), (r * 0.75, -0.7), (r, -0.35), (0, -0.35)], np.float32), 0.01), paint=2)
    trunk = u(0.03, 0.12)
    c.add(
        tube(curve((0, -0.6, 0), (u(-0.2, 0.2), -0.2, 0), (u(-0.2, 0.2), 0.2, 0)), ramp(trunk * 1.3, trunk)),
        k=0.02,
        paint=1,
    )
    kind = c.rng.random()
    if kind < 0.35:
        for _ in range(c.count(1, 5)):
            a = u(0.15, 0.4)
            c.add(ellipsoid(a, a * u(0.6, 1.1), a), (u(-0.25, 0.25), u(0.1, 0.5), u(-0.25, 0.25)), k=0.06)
    elif kind < 0.55:
        for i in range(c.count(1, 3)):
            c.add(capsule(0, 0.35, 0, u(0.3, 0.45) * (1 - 0.25 * i), 0.03), (0, -0.1 + 0.3 * i, 0))
    elif kind < 0.8:
        n, span = c.count(4, 8), u(0.25, 0.55)
        path = curve((0, 0.15, 0), (span * 0.6, u(0.3, 0.6), 0), (span, u(-0.1, 0.5), 0), count=5)
        c.add(tube(path, np.array([0.02, 0.05, 0.06, 0.05, 0.015], np.float32)), ring=n, k=0.02)
    else:
        c.add(ellipsoid(u(0.25, 0.5), u(0.1, 0.35), u(0.25, 0.5)), (0, 0.25, 0))


def house(c: Clay) -> None:
    u = c.u
    w, h, d = u(0.25, 0.55), u(0.2, 0.5), u(0.25, 0.5)
    c.add(box(w, h, d))
    e, top = u(1.0, 1.2), u(0.15, 0.5)
    c.add(prism(np.array([(-w * e, h), (w * e, h), (0, h + top)], np.float32), d * e), paint=1)
    if c.chance(0.5):
        c.add(box(0.05, 0.2, 0.05), (w * 0.5, h + top * 0.6, d * u(-0.5, 0.5)), paint=2)
    for y in np.linspace(-0.5, 0.5, c.count(1, 2)):
        if c.chance(0.3):
            c.add(box(w * 0.15, h * 0.15, d * 1.2), (w * 0.55, h * y, 0), op="cut", fold="x", paint=3)
        else:
            c.add(box(w * 0.15, h * 0.18, 0.02), (w * 0.55, h * y, d), fold="x", paint=3)
    c.add(box(w * 0.15, h * 0.35, 0.03), (0, -h * 0.65, d), paint=2)
    if c.chance(0.4):
        c.add(cylinder(u(0.1, 0.2), h * 1.3), (w, 0.1, d * u(-1, 1)), paint=0)
        c.add(capsule(0, 0.3, 0, 0.22, 0.01), (w, 0.1 + h * 1.3, 0), paint=1)


def lamp(c: Clay) -> None:
    """Held out: only the test generator makes lamps."""
    u = c.u
    h, r = u(0.3, 0.6), u(0.2, 0.35)
    c.add(cylinder(r * u(0.6, 1), u(0.03, 0.08), 0.02), (0, -h, 0), paint=1)
    c.add(capsule(u(-0.1, 0.1), 1.5 * h, 0, u(0.025, 0.06)), (0, -h, 0), paint=1)
    c.add(shell(np.array([(r * u(0.3, 0.9), h + 0.15), (r, h - 0.2)], np.float32), u(0.018, 0.03)), k=0.0)
    c.add(ellipsoid(0.1, 0.14, 0.1), (0, h - 0.05, 0), paint=2)
    c.add(box(r * 0.6, 0.015, 0.015), (0, h, 0), paint=1)


HOUSEHOLD = {
    "vessel": (vessel, 11.0),
    "turned": (turned, 6.0),
    "fruit": (fruit, 3.0),
    "chair": (chair, 6.0),
    "furniture": (furniture, 6.0),
    "tool": (tool, 6.0),
    "food": (food, 3.0),
    "plant": (plant, 4.0),
    "house": (house, 2.5),
}
