"""Animals, people, busts, hands, plush toys. Creatures face +z, stand along y, are mirrored in x. NumPy only."""

# ruff: noqa: RUF005 - numpy vectors are added here, not concatenated

from __future__ import annotations

import numpy as np

from training.grammars.clay import Clay, curve, ramp, turn
from training.sdf import box, capsule, cylinder, ellipsoid, prism, tube


def quadruped(c: Clay) -> None:
    u = c.u
    k = u(0.02, 0.1)
    length, girth, leg = u(0.35, 0.65), u(0.15, 0.33), u(0.12, 0.6)
    slim = u(0.7, 1.1)
    c.add(ellipsoid(girth * slim, girth, length))
    for z, bulge in ((length * 0.55, u(0.7, 1.15)), (-length * 0.55, u(0.7, 1.15))):
        c.add(ellipsoid(girth * slim * bulge, girth * bulge, length * 0.45), (0, u(-0.05, 0.08), z), k=k)
    r = u(0.045, 0.11) * (0.6 + girth)
    stance = girth * slim * u(0.5, 0.75)
    for z in (length * u(0.5, 0.8), -length * u(0.5, 0.8)):
        lean, foot = u(-0.12, 0.12), u(0.7, 1.4)
        knee = (stance + u(0, 0.04), -girth * 0.5 - leg * 0.5, z + lean)
        path = np.array([(stance, 0, z), knee, (stance, -girth * 0.6 - leg, z + lean * u(-0.5, 1.5))], np.float32)
        c.add(tube(path, np.array([r * u(1.1, 1.9), r, r * foot], np.float32)), k=k, fold="x")
        if c.chance(0.5):
            c.add(ellipsoid(r * 1.2, r * 0.8, r * 1.8), path[2] + (0, 0, r * 0.6), k=0.02, fold="x", paint=2)
    rise, reach = u(-0.05, 0.6), u(0.1, 0.35)
    neck = np.array([(0, girth * 0.3, length * 0.75), (0, girth * 0.5 + rise, length + reach)], np.float32)
    nr = girth * u(0.35, 0.75)
    c.add(capsule(*(neck[1] - neck[0]), nr, nr * u(0.6, 0.95)), neck[0], k=k)
    _head(c, neck[1], u(0.13, 0.26), k)
    if c.chance(0.85):
        base = (0, girth * 0.5, -length * 1.1)
        mid = (0, u(-0.3, 0.5), -length - u(0.1, 0.35))
        tip = (u(-0.1, 0.1), u(-0.4, 0.6), -length - u(0.1, 0.5))
        c.add(tube(curve(base, mid, tip), ramp(r * u(0.4, 1.3), r * u(0.2, 1.0))), k=0.03, paint=c.count(0, 1))


def _head(c: Clay, at: np.ndarray, s: float, k: float) -> None:
    u = c.u
    c.add(ellipsoid(s * u(0.75, 1.1), s * u(0.8, 1.1), s * u(0.85, 1.2)), at, k=k)
    snout = s * u(0.5, 1.3)
    tip = at + (0, -s * u(0.05, 0.45), snout)
    c.add(capsule(*(tip - at), s * u(0.5, 0.75), s * u(0.2, 0.55)), at, k=k * 0.7, paint=c.count(0, 1))
    if c.chance(0.5):
        c.add(ellipsoid(s * 0.16, s * 0.12, s * 0.14), tip + (0, s * 0.2, s * 0.3), paint=3)
    ear = c.rng.random()
    ex, ey = s * u(0.4, 0.75), s * u(0.45, 0.8)
    if ear < 0.35:
        h = s * u(0.4, 1.1)
        lean = (h * u(0, 0.6), h, h * u(-0.4, 0.1))
        c.add(capsule(*lean, s * u(0.15, 0.35), s * u(0.03, 0.12)), at + (ex, ey, -s * 0.1), fold="x", k=0.02, paint=1)
    elif ear < 0.6:
        tilt = turn(0, 0, u(-0.6, 0.9))
        c.add(
            ellipsoid(s * u(0.15, 0.45), s * u(0.3, 0.9), s * 0.12),
            at + (ex * 1.4, ey * u(0.3, 1.2), -s * 0.1),
            tilt,
            fold="x",
            paint=1,
        )
    elif ear < 0.9:
        c.add(
            ellipsoid(s * u(0.25, 0.45), s * u(0.25, 0.45), s * 0.15),
            at + (ex * 1.3, ey * 1.1, 0),
            fold="x",
            k=0.01,
            paint=1,
        )
    if c.chance(0.2):
        h = s * u(0.5, 1.6)
        path = curve((0, 0, 0), (h * u(0.2, 0.8), h * 0.5, 0), (h * u(-0.1, 0.8), h, -h * u(-0.2, 0.9)))
        c.add(tube(path, ramp(s * 0.15, s * 0.03)), at + (s * 0.3, s * 0.7, 0), fold="x", paint=2)
    if c.chance(0.5):
        c.add(ellipsoid(*(s * u(0.09, 0.16),) * 3), at + (s * 0.42, s * 0.3, s * 0.75), fold="x", paint=3)


def plush(c: Clay) -> None:
    """Sitting or standing toys and stout animals: bears, owls, cats, penguins, dolls."""
    u = c.u
    k = u(0.01, 0.08)
    w, h, d = u(0.28, 0.45), u(0.35, 0.6), u(0.24, 0.4)
    c.add(ellipsoid(w, h, d))
    s = u(0.2, 0.42)
    head = np.array((0, h * u(0.75, 1.0) + s * u(0.3, 0.75), u(-0.05, 0.15)))
    _head(c, head, s, k)
    if c.chance(0.85):
        r = u(0.06, 0.15)
        end = (w * u(0.1, 0.9), -u(-0.3, 0.5), u(-0.05, 0.4))
        c.add(capsule(*end, r, r * u(0.6, 1.2)), (w * 0.75, h * u(0.3, 0.6), 0), fold="x", k=k, paint=c.count(0, 2))
    if c.chance(0.85):
        r = u(0.08, 0.18)
        end = (u(0, 0.2), -u(0.0, 0.25), u(0.05, 0.5))
        c.add(capsule(*end, r, r * u(0.7, 1.2)), (w * 0.6, -h * u(0.65, 0.95), 0), fold="x", k=k)
        if c.chance(0.6):
            foot = np.array((w * 0.6, -h * 0.8, 0)) + end
            c.add(
                ellipsoid(r * u(0.8, 1.2), r * u(0.5, 1.3), r * u(0.8, 1.8)),
                foot + (0, 0, r * 0.5),
                fold="x",
                k=0.02,
                paint=2,
            )
    if c.chance(0.5):
        mid, tip = (u(-0.3, 0.3), -h * 0.7, -d - 0.25), (u(-0.5, 0.5), u(-0.5, 0.3), -d - u(0, 0.2))
        c.add(tube(curve((0, -h * 0.7, -d * 0.7), mid, tip), ramp(u(0.05, 0.1), u(0.02, 0.09))), k=0.03)
    if c.chance(0.25):
        c.add(ellipsoid(w * 0.7, h * 0.75, d * 0.4), (0, -0.02, d * 0.68), k=0.02, paint=2)


def bird(c: Clay) -> None:
    u = c.u
    k = u(0.02, 0.1)
    w, h, length = u(0.2, 0.35), u(0.2, 0.36), u(0.35, 0.6)
    pitch = u(-0.9, 0.2)
    c.add(ellipsoid(w, h, length), turn=turn(pitch))
    s = u(0.12, 0.26)
    head = np.array((0, u(0.2, 0.65), length * u(0.5, 0.95)))
    start = np.array((0, h * 0.4, length * 0.5))
    c.add(capsule(*(head - start), h * u(0.3, 0.7), s * u(0.5, 0.9)), start, k=k)
    c.add(ellipsoid(s, s, s * u(1, 1.2)), head, k=k)
    bl = s * u(0.5, 1.8)
    c.add(
        capsule(0, -bl * u(-0.1, 0.3), bl, s * u(0.25, 0.5), s * u(0.04, 0.3)), head + (0, 0, s * 0.6), k=0.01, paint=2
    )
    c.add(ellipsoid(s * 0.15, s * 0.15, s * 0.15), head + (s * 0.7, s * 0.3, s * 0.5), fold="x", paint=3)
    if c.chance(0.35):  # spread wings
        span, chord = u(0.5, 1.0), u(0.15, 0.3)
        c.add(
            ellipsoid(span / 2, u(0.025, 0.05), chord),
            (span / 2, h * 0.5, 0),
            turn(0, u(-0.4, 0.4), u(-0.2, 0.6)),
            fold="x",
            k=0.03,
            paint=1,
        )
    else:
        c.add(
            ellipsoid(w * 0.3, h * u(0.5, 0.8), length * u(0.6, 0.9)),
            (w * 0.85, 0.02, -0.08),
            turn(pitch),
            fold="x",
            k=0.02,
            paint=1,
        )
    c.add(
        ellipsoid(w * u(0.4, 0.8), u(0.03, 0.09), u(0.15, 0.35)),
        (0, -np.sin(-pitch) * length * 0.9, -length * np.cos(pitch)),
        turn(u(-0.6, 0.6)),
        k=0.05,
        paint=1,
    )
    if c.chance(0.7):
        leg = u(0.05, 0.5)
        c.add(capsule(0, -leg, 0.03, 0.05, u(0.02, 0.05)), (w * 0.4, -h * 0.8, 0), fold="x", k=0.02, paint=2)
        c.add(ellipsoid(u(0.05, 0.1), 0.03, u(0.08, 0.16)), (w * 0.4, -h * 0.8 - leg, 0.08), fold="x", k=0.02, paint=2)


def fish(c: Clay) -> None:
    u = c.u
    w, h, length = u(0.08, 0.28), u(0.15, 0.45), u(0.5, 0.85)
    k = u(0.02, 0.1)
    c.add(ellipsoid(w, h, length * 0.75), (0, 0, 0.1))
    c.add(capsule(0, u(-0.05, 0.1), -length * 0.9, min(w, h) * 0.9, u(0.03, 0.07)), k=k)
    spread, fork = u(0.15, 0.5), u(0.0, 0.25)
    tail = np.array(
        [(-0.05, 0.04), (0.35, spread), (0.35 - fork, 0), (0.35, -spread * u(0.5, 1.1)), (-0.05, -0.04)], np.float32
    )
    c.add(prism(tail, u(0.01, 0.03), 0.008), (0, 0, -length * 0.8), turn(0, np.pi / 2, 0), k=0.03, paint=1)
    if c.chance(0.85):
        a, b = u(0.1, 0.4), u(0.1, 0.35)
        fin = np.array([(-0.3, -0.05), (-a, b * u(0.6, 1)), (u(0.0, 0.3), b), (0.35, -0.05)], np.float32)
        c.add(prism(fin, u(0.012, 0.03), 0.006), (0, h * 0.8, 0), turn(0, np.pi / 2, 0), k=0.02, paint=1)
    if c.chance(0.8):
        c.add(
            ellipsoid(u(0.12, 0.35), 0.025, u(0.06, 0.15)),
            (w + 0.08, -h * 0.25, 0.25),
            turn(0, u(0.2, 0.8), u(-0.7, 0.2)),
            fold="x",
            k=0.02,
            paint=1,
        )
    c.add(ellipsoid(0.05, 0.05, 0.05), (w * 0.75, h * 0.25, length * 0.5), fold="x", paint=3)
    if c.chance(0.4):
        c.add(box(0.3, 0.015, 0.08), (0, -0.03, length * 0.85 + 0.05), op="cut")


def humanoid(c: Clay) -> None:
    u = c.u
    k = u(0.015, 0.06)
    sh, hip, depth = u(0.14, 0.3), u(0.1, 0.2), u(0.08, 0.17)
    c.add(ellipsoid(sh, u(0.18, 0.26), depth), (0, 0.22, 0))
    c.add(ellipsoid(hip * 1.1, u(0.13, 0.2), depth), (0, -0.02, 0), k=0.08)
    c.add(capsule(0, 0.2, 0, 0.07, 0.05), (0, 0.35, 0), k=k)
    s = u(0.1, 0.2)
    c.add(ellipsoid(s * u(0.75, 1), s * u(1, 1.25), s), (0, 0.5 + s, 0.02), k=0.03, paint=1)
    if c.chance(0.4):
        c.add(ellipsoid(s * 1.1, s * u(0.6, 1.2), s * 1.1), (0, 0.55 + s * 1.4, -0.03), k=0.02, paint=2)
    if c.chance(0.5):
        c.add(ellipsoid(s * 0.15, s * 0.2, s * 0.3), (0, 0.5 + s, s), k=0.02, paint=1)
    pose, r = u(-1.5, 1.3), u(0.035, 0.08)
    upper, lower = u(0.22, 0.32), u(0.2, 0.3)
    symmetric = c.chance(0.6)
    for side in (1,) if symmetric else (1, -1):
        a = pose if side == 1 else u(-1.5, 1.3)
        b = a + u(-0.6, 0.6)
        elbow = (side * (sh + upper * np.cos(a)), 0.34 + upper * np.sin(a), u(-0.05, 0.1))
        hand = (elbow[0] + side * lower * np.cos(b), elbow[1] + lower * np.sin(b), elbow[2] + u(-0.05, 0.2))
        path = np.array([(side * sh * 0.85, 0.35, 0), elbow, hand], np.float32)
        fold = "x" if symmetric else ""
        c.add(tube(path, np.array([r * 1.2, r, r * 0.8], np.float32)), k=k, fold=fold)
        c.add(ellipsoid(r * 1.1, r * 1.3, r * 0.8), hand, k=0.02, fold=fold, paint=1)
    leg, lr = u(0.2, 0.42), u(0.05, 0.11)
    spread, stride = u(0.0, 0.2), u(-0.25, 0.25) if c.chance(0.5) else 0.0
    for side in (1, -1):
        foot = (side * (hip * 0.6 + spread), -2 * leg, side * stride)
        path = np.array(
            [(side * hip * 0.6, -0.05, 0), (side * (hip * 0.6 + spread * 0.5), -leg, side * stride * 0.4 + 0.03), foot],
            np.float32,
        )
        c.add(tube(path, np.array([lr * 1.3, lr, lr * 0.75], np.float32)), k=k, paint=2)
        c.add(
            ellipsoid(lr * 0.9, lr * 0.7, lr * 1.7), (foot[0], foot[1] - lr * 0.3, foot[2] + lr * 0.8), k=0.02, paint=3
        )
    if c.chance(0.25):  # a skirt or coat
        c.add(capsule(0, -u(0.2, 0.6), 0, hip, u(0.15, 0.32)), (0, 0.05, 0), k=0.05, paint=2)


def bust(c: Clay) -> None:
    u = c.u
    s = u(0.26, 0.36)
    w, d = s * u(0.72, 0.9), s * u(0.85, 1.1)
    c.add(ellipsoid(w, s * 1.15, d), (0, 0.35, 0))
    c.add(ellipsoid(w * u(0.6, 0.8), s * u(0.4, 0.6), d * 0.6), (0, 0.35 - s * 0.75, d * 0.3), k=0.1)
    c.add(capsule(0, -u(0.3, 0.5), u(-0.1, 0.0), w * u(0.45, 0.65), w * u(0.5, 0.8)), (0, 0.15, -0.04), k=0.06)
    if c.chance(0.85):
        nose = s * u(0.12, 0.2)
        c.add(
            tube(
                np.array([(0, 0.42, d * 0.95), (0, 0.3, d * 1.0 + nose)], np.float32),
                np.array([0.03, nose * 0.55], np.float32),
            ),
            k=0.03,
        )
        c.add(ellipsoid(s * 0.2, s * 0.13, s * 0.15), (w * 0.42, 0.43, d * 0.93), op="cut", k=0.05, fold="x")
        c.add(ellipsoid(s * 0.25, s * 0.06, s * 0.08), (0, 0.35 - s * 0.62, d * 0.95), k=0.03, paint=2)
    if c.chance(0.7):
        c.add(
            ellipsoid(s * 0.1, s * u(0.2, 0.6), s * 0.17), (w, 0.36, -0.02), turn(0, 0, u(-0.5, 0.2)), k=0.02, fold="x"
        )
    if c.chance(0.25):
        h = u(0.2, 0.5)
        path = curve((0, 0, 0), (h * u(0, 0.8), h, 0), (h * u(0.2, 1.2), h * u(0.2, 1.2), -h * u(0, 0.8)))
        c.add(tube(path, ramp(s * 0.25, s * 0.05)), (w * 0.5, 0.35 + s * 0.8, 0), fold="x", k=0.03, paint=2)
    top = c.rng.random()
    if top < 0.35:
        c.add(
            ellipsoid(w * u(1.05, 1.3), s * u(0.7, 1.1), d * u(1, 1.3)),
            (0, 0.35 + s * u(0.3, 0.5), -d * u(0.15, 0.35)),
            k=0.03,
            paint=1,
        )
    elif top < 0.6:
        c.add(
            capsule(0, u(0.2, 0.6), -u(0, 0.3), w * 1.02, w * u(0.5, 1.3)), (0, 0.35 + s * 0.5, -0.03), k=0.02, paint=1
        )
    if c.chance(0.6):
        c.add(ellipsoid(u(0.35, 0.6), u(0.13, 0.25), u(0.2, 0.3)), (0, -0.32, -0.05), k=u(0.03, 0.15), paint=1)
        if c.chance(0.7):
            c.add(box(0.9, 0.3, 0.9), (0, -0.32 - u(0.3, 0.45), 0), op="cut")
    if c.chance(0.3):
        c.add(cylinder(u(0.15, 0.35), 0.08, 0.02), (0, -0.5, 0), k=0.02, paint=2)


def hand(c: Clay) -> None:
    u = c.u
    w, h, d = u(0.2, 0.28), u(0.24, 0.32), u(0.07, 0.11)
    c.add(box(w, h, d, d * 0.9))
    curl = u(-0.1, 0.5)
    for i in range(4):
        x = (i - 1.5) * w * 0.5
        ln = u(0.28, 0.45) * (1.1 - 0.12 * abs(i - 1.4))
        bend = max(curl + u(-0.15, 0.25), 0)
        path = curve(
            (x, h * 0.85, 0),
            (x * 1.2, h + ln * 0.7, 0),
            (x * 1.3 + u(-0.05, 0.05), h + ln * (1 - bend * 0.6), ln * bend * 1.5),
            count=5,
        )
        c.add(tube(path, ramp(u(0.06, 0.075), u(0.045, 0.06), 5)), k=0.025)
    path = curve(
        (w * 0.7, -h * 0.5, 0.02), (w * 1.5, -h * 0.1, 0.05), (w + u(0.1, 0.3), h * u(0.3, 1.0), u(0.0, 0.25)), count=5
    )
    c.add(tube(path, ramp(0.1, 0.055, 5)), k=0.05)
    c.add(capsule(0, -u(0.2, 0.6), 0, w * 0.62, w * u(0.6, 0.85)), (0, -h * 0.8, 0), k=0.08, paint=c.count(0, 1))


def blob(c: Clay) -> None:
    """Soft unions without a plan: scans, roots, plush, fruit."""
    u = c.u
    k = u(0.05, 0.25)
    at = np.zeros(3)
    for _ in range(c.count(2, 7)):
        r = u(0.12, 0.4)
        if c.chance(0.7):
            c.add(
                ellipsoid(r * u(0.5, 1.3), r * u(0.5, 1.3), r * u(0.5, 1.3)),
                at,
                turn(u(0, 3), u(0, 3)),
                k=k,
                paint=c.count(0, 1),
            )
        else:
            end = at + c.rng.normal(0, 0.35, 3)
            c.add(
                tube(curve(at, at + c.rng.normal(0, 0.4, 3), end), ramp(r * 0.6, r * u(0.1, 0.6))),
                k=k,
                paint=c.count(0, 2),
            )
        at = at + c.rng.normal(0, 0.25, 3)
        at *= 0.8


def curved(c: Clay) -> None:
    """One bent, tapering body: bananas, horns, peppers, worms, hooks."""
    u = c.u
    path = curve(
        (-0.7, u(-0.2, 0.5), 0),
        (-0.3, u(-0.5, 0.1), u(-0.3, 0.3)),
        (0.3, u(-0.5, 0.1), 0),
        (0.7, u(-0.2, 0.6), u(-0.2, 0.2)),
        count=10,
    )
    a, m, b = u(0.03, 0.2), u(0.1, 0.28), u(0.02, 0.2)
    s = np.linspace(0, 1, 10)
    radii = np.asarray(np.where(s < 0.5, a + (m - a) * np.sin(s * np.pi), b + (m - b) * np.sin(s * np.pi)), np.float32)
    c.add(tube(path, radii), k=0.03)
    if c.chance(0.5):
        c.add(capsule(*(path[0] - path[1]) * u(0.5, 2), a * 0.8, a * u(0.3, 0.8)), path[0], k=0.03, paint=1)
    if c.chance(0.3):
        c.add(tube(path + np.float32(c.rng.normal(0, 0.1, 3)), radii * 0.9), k=0.02, paint=1)


CREATURES = {
    "quadruped": (quadruped, 10.0),
    "plush": (plush, 9.0),
    "bird": (bird, 5.0),
    "fish": (fish, 4.0),
    "humanoid": (humanoid, 7.0),
    "bust": (bust, 6.0),
    "hand": (hand, 2.0),
    "blob": (blob, 4.0),
    "curved": (curved, 3.0),
}
