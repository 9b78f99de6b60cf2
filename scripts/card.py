"""nbs/card.png, the picture that stands beside a shared link to the site: `python scripts/card.py`."""
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).resolve().parent.parent / "nbs" / "card.png"
GROUND, BLUE, ORANGE, GREY = "#1b2a3a", "#56b4e9", "#e69f00", "#7d8a97"


def main():
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor=GROUND)
    ax = fig.add_axes([0, 0, 1, 1], xlim=(0, 12), ylim=(0, 6.3))
    ax.axis("off")
    for y, length, colour in [(2.05, 3.4, BLUE), (1.35, 2.5, ORANGE), (.65, 1.1, GREY)]:     # the site's mark, without figures
        ax.add_patch(FancyBboxPatch((.8, y), length, .4, boxstyle="round,pad=0,rounding_size=.08", facecolor=colour, linewidth=0))
    ax.plot([2.8, 2.8], [.45, 2.65], color="white", linestyle=(0, (3, 2)), linewidth=3)
    ax.text(.8, 4.9, "bert-genres", color="white", fontsize=58, fontweight="bold", va="center")
    said = "All the genres of a film from its plot:\nmulti-label text classification, honestly evaluated"
    ax.text(.8, 3.75, said, color="white", fontsize=26, va="center", linespacing=1.4)
    fig.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
