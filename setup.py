"""Builds the package from settings.ini, where nbdev keeps its name, version and requirements."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], inline_comment_prefixes=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
names = ["train", "finetune", "parquet", "plots", "experiments", "app", "ray"]
extras = {name: cfg[f"{name}_requirements"].split() for name in names}
readme = here / "README.md"

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"],
    author=cfg["author"],
    license="Apache-2.0",
    url=cfg["git_url"],
    python_requires=f">={cfg['min_python']},<3.14",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": [cfg["console_scripts"]], "nbdev": ["bert_genres=bert_genres._modidx:d"]},
    packages=["bert_genres"],
    package_data={"bert_genres": ["corpora/sample/*", "page/*", "py.typed"]},
)
