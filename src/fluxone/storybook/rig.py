"""A figure's fourteen joints, and the poses they take.

Angles are degrees from straight down, outwards from the body: 0 hangs, 90 points sideways, 180 points up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluxone.storybook.canvas import Point
from fluxone.storybook.spec import Person

Limb = tuple[float, float]  # the upper part's angle and the lower part's


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One row: phrases, four limbs (the figure's left is the picture's left) and a hop, as shares of the height."""

    phrases: tuple[str, ...]
    left_arm: Limb = (20, 12)
    right_arm: Limb = (20, 12)
    left_leg: Limb = (7, 7)
    right_leg: Limb = (7, 7)
    hop: float = 0.0


LEG, ARM, TORSO, NECK_TO_HEAD = 0.15, 0.135, 0.26, 0.175  # shares of the height
SHOULDER, HIP, SOLE = 0.1, 0.055, 0.035

POSES: dict[str, Pose] = {
    "standing": Pose(phrases=("standing",)),
    "waving": Pose(phrases=("waving", "waving a hand"), right_arm=(140, 170)),
    "jumping": Pose(
        phrases=("jumping", "jumping up"),
        left_arm=(130, 150),
        right_arm=(130, 150),
        left_leg=(44, -28),
        right_leg=(44, -28),
        hop=0.16,
    ),
    "walking": Pose(phrases=("walking",), left_arm=(-18, 8), right_arm=(38, 50), left_leg=(24, 8), right_leg=(22, 2)),
    "running": Pose(
        phrases=("running",), left_arm=(55, 120), right_arm=(-25, 65), left_leg=(54, 0), right_leg=(38, -60), hop=0.02
    ),
    "dancing": Pose(phrases=("dancing",), left_arm=(120, 60), right_arm=(62, 150), left_leg=(32, -6), right_leg=(8, 8)),
    "pointing": Pose(phrases=("pointing",), right_arm=(90, 90)),
    "cheering": Pose(
        phrases=("cheering", "with both arms raised"),
        left_arm=(145, 165),
        right_arm=(145, 165),
        left_leg=(9, 9),
        right_leg=(9, 9),
    ),
    "posing": Pose(
        phrases=("with hands on hips",), left_arm=(50, -42), right_arm=(50, -42), left_leg=(10, 10), right_leg=(10, 10)
    ),
    "holding": Pose(phrases=("standing",), right_arm=(48, 128), left_arm=(18, 10)),  # only with a thing in the hand
}

BONES: tuple[tuple[str, str, str], ...] = (
    ("head", "neck", "#ff5a5a"),
    ("neck", "left shoulder", "#ff9d3b"),
    ("neck", "right shoulder", "#9bdc4b"),
    ("left shoulder", "left elbow", "#ffb13b"),
    ("left elbow", "left wrist", "#ffe04d"),
    ("right shoulder", "right elbow", "#5fd35f"),
    ("right elbow", "right wrist", "#3bd0a0"),
    ("neck", "left hip", "#4dc8ff"),
    ("neck", "right hip", "#6a7bff"),
    ("left hip", "left knee", "#3ba0ff"),
    ("left knee", "left ankle", "#3b6bff"),
    ("right hip", "right knee", "#9b5bff"),
    ("right knee", "right ankle", "#e05bff"),
)  # the coloured sticks of the pose picture


def _along(start: Point, degrees: float, length: float, side: float) -> Point:
    angle = math.radians(degrees)
    return start[0] + side * math.sin(angle) * length, start[1] + math.cos(angle) * length


def joints(person: Person) -> dict[str, Point]:
    """Where the fourteen joints are; the lower foot rests on `person.foot` unless the pose hops."""
    pose, tall = POSES[person.pose], person.height
    mirror = -1.0 if person.flip else 1.0
    legs = (pose.left_leg, pose.right_leg)
    drop = max(sum(math.cos(math.radians(a)) for a in leg) for leg in legs) * LEG * tall
    hips = person.foot - drop - SOLE * tall - pose.hop * tall
    neck = (person.x, hips - TORSO * tall)
    found = {"head": (person.x, neck[1] - NECK_TO_HEAD * tall), "neck": neck}
    for name, sign, arm, leg in (
        ("left", -1.0, pose.left_arm, pose.left_leg),
        ("right", 1.0, pose.right_arm, pose.right_leg),
    ):
        side = sign * mirror
        shoulder = (person.x + side * SHOULDER * tall, neck[1] + 0.035 * tall)
        elbow = _along(shoulder, arm[0], ARM * tall, side)
        hip = (person.x + side * HIP * tall, hips)
        knee = _along(hip, leg[0], LEG * tall, side)
        found |= {
            f"{name} shoulder": shoulder,
            f"{name} elbow": elbow,
            f"{name} wrist": _along(elbow, arm[1], ARM * tall, side),
            f"{name} hip": hip,
            f"{name} knee": knee,
            f"{name} ankle": _along(knee, leg[1], LEG * tall, side),
        }
    return found
