"""`cclight cite`: the BibTeX of what a run used. Every class carries its reference once, as the attribute `reference`.

References are read from cclight's source text (`cclight.workbench.catalogue`); a class of anyone else's is imported for its.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from cclight.workbench.arguments import Parser
from cclight.workbench.catalogue import classes
from cclight.workbench.results import class_name, read_all

# A data set is known by its address, which a source takes as an argument: what to cite for it stands here.
DATA_SETS: tuple[tuple[str, str], ...] = (
    (
        r"imagenet|ilsvrc",
        """@article{russakovsky2015imagenet,
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
            Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and Fei-Fei, Li},
  journal = {International Journal of Computer Vision},
  year = {2015}
}""",
    ),
    (
        r"ffhq",
        """@inproceedings{karras2019style,
  title = {A Style-Based Generator Architecture for Generative Adversarial Networks},
  author = {Karras, Tero and Laine, Samuli and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2019}
}""",
    ),
    (
        r"celeba",
        """@inproceedings{karras2018progressive,
  title = {Progressive Growing of {GANs} for Improved Quality, Stability, and Variation},
  author = {Karras, Tero and Aila, Timo and Laine, Samuli and Lehtinen, Jaakko},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""",
    ),
    (
        r"afhq",
        """@inproceedings{choi2020stargan,
  title = {{StarGAN} v2: Diverse Image Synthesis for Multiple Domains},
  author = {Choi, Yunjey and Uh, Youngjung and Yoo, Jaejun and Ha, Jung-Woo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""",
    ),
    (
        r"lsun",
        """@misc{yu2015lsun,
  title = {{LSUN}: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the Loop},
  author = {Yu, Fisher and Seff, Ari and Zhang, Yinda and Song, Shuran and Funkhouser, Thomas and Xiao, Jianxiong},
  eprint = {1506.03365},
  archivePrefix = {arXiv},
  year = {2015}
}""",
    ),
    (
        r"\bSamplePhotographs\b",
        """@article{vanderwalt2014scikit,
  title = {scikit-image: image processing in {Python}},
  author = {{van der Walt}, St{\\'e}fan and Sch{\\"o}nberger, Johannes L. and Nunez-Iglesias, Juan and Boulogne, Fran{\\c{c}}ois and
            Warner, Joshua D. and Yager, Neil and Gouillart, Emmanuelle and Yu, Tony and {the scikit-image contributors}},
  journal = {PeerJ},
  volume = {2},
  pages = {e453},
  year = {2014}
}""",
    ),
)


def parser() -> Parser:
    """The command's arguments."""
    parser = Parser("cite", "Print the BibTeX of the samplers, priors, operators and data sets that runs used, each once.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, such as runs/sr")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight cite`: print the BibTeX of what runs used."""
    entries: dict[str, str] = {}
    without: dict[str, None] = {}
    for run in read_all(parser().parse_args(arguments).runs):
        for name, bibtex in references(run.config):
            if bibtex:
                entries.setdefault(key_of(bibtex), bibtex)
            else:
                without.setdefault(name)
    print("\n\n".join(entries.values()))
    if without:
        print(f"Nothing to cite for {', '.join(without)}.", file=sys.stderr)


def references(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The classes of a run's sampler, prior, operator and data with the BibTeX of each, or nothing where it has none.

    Args:
        config: the run's resolved configuration.
    """
    model = config.get("model") or {}
    for part in (model.get("sampler"), model.get("prior"), config.get("operator")):
        for path, _ in class_paths(part):
            yield class_name({"class_path": path}), reference_of(path)
    for path, arguments in class_paths((config.get("data") or {}).get("source")):
        name = class_name({"class_path": path})
        known = f"{name} {(arguments or {}).get('path', '')}"
        # A wrapper such as Subset holds no photographs of its own: the source inside it comes next.
        if "source" not in (arguments or {}):
            found = next((bibtex for pattern, bibtex in DATA_SETS if re.search(pattern, known, re.IGNORECASE)), "")
            yield known.strip(), reference_of(path) or found


def class_paths(part: Any) -> Iterator[tuple[str, Any]]:
    """Every class in a part of a configuration with its arguments, outermost first."""
    if isinstance(part, Mapping):
        if isinstance(part.get("class_path"), str):
            yield part["class_path"], part.get("init_args")
        for value in part.values():
            yield from class_paths(value)
    elif isinstance(part, list):
        for value in part:
            yield from class_paths(value)


def reference_of(path: str) -> str:
    """The `reference` of the class at a dotted path.

    Raises:
        ValueError: for a class of someone else's that cannot be imported here.
    """
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] == "cclight" and name in classes():
        return classes()[name].attribute("reference").strip()
    try:
        return str(getattr(getattr(import_module(module), name), "reference", "")).strip()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} cannot be imported for its reference ({error}): run this where the run was made.") from error


def key_of(bibtex: str) -> str:
    """The key of a BibTeX entry, or the entry itself where it has none."""
    match = re.match(r"@\w+\{\s*([^,\s]+)", bibtex)
    return match[1] if match else bibtex
