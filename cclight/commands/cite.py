"""`cclight cite`: the BibTeX of what runs used. Each class carries its reference once, as the attribute `reference`."""

from __future__ import annotations

import argparse
import re
import sys

from cclight.commands.arguments import PlainParser
from cclight.runs.classes import class_paths, is_own
from cclight.runs.results import Run

# Data sets are named by path, not by class; a word of the path or of its configuration tells which.
DATASETS = {
    "imagenet": """@article{russakovsky2015imagenet,
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
            Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and
            Fei-Fei, Li},
  journal = {International Journal of Computer Vision},
  year = {2015}
}""",
    "ffhq": """@inproceedings{karras2019style,
  title = {A Style-Based Generator Architecture for Generative Adversarial Networks},
  author = {Karras, Tero and Laine, Samuli and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2019}
}""",
    "celeba": """@inproceedings{karras2018progressive,
  title = {Progressive Growing of {GANs} for Improved Quality, Stability, and Variation},
  author = {Karras, Tero and Aila, Timo and Laine, Samuli and Lehtinen, Jaakko},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""",
    "afhq": """@inproceedings{choi2020stargan,
  title = {{StarGAN} v2: Diverse Image Synthesis for Multiple Domains},
  author = {Choi, Yunjey and Uh, Youngjung and Yoo, Jaejun and Ha, Jung-Woo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""",
    "lsun": """@article{yu2015lsun,
  title = {{LSUN}: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the Loop},
  author = {Yu, Fisher and Seff, Ari and Zhang, Yinda and Song, Shuran and Funkhouser, Thomas and Xiao, Jianxiong},
  journal = {arXiv preprint arXiv:1506.03365},
  year = {2015}
}""",
}
METRICS = {
    "ssim": """@article{wang2004image,
  title = {Image Quality Assessment: From Error Visibility to Structural Similarity},
  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  journal = {IEEE Transactions on Image Processing},
  year = {2004}
}""",
    "lpips": """@inproceedings{zhang2018unreasonable,
  title = {The Unreasonable Effectiveness of Deep Features as a Perceptual Metric},
  author = {Zhang, Richard and Isola, Phillip and Efros, Alexei A. and Shechtman, Eli and Wang, Oliver},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2018}
}""",
    "fid": """@inproceedings{heusel2017gans,
  title = {{GANs} Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium},
  author = {Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}""",
    "kid": """@inproceedings{binkowski2018demystifying,
  title = {Demystifying {MMD} {GANs}},
  author = {Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""",
}


def parser() -> argparse.ArgumentParser:
    """The options of `cclight cite`."""
    parser = PlainParser("cclight cite", description="Print the BibTeX of what runs used.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, as runs/sr")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight cite RUN...`.

    Raises:
        UsageError: when a folder is no finished run, or a file of it is damaged.
    """
    print("\n\n".join(citations([Run.read(path) for path in parser().parse_args(arguments).runs])))


def citations(runs: list[Run]) -> list[str]:
    """The BibTeX entries of the runs' samplers, priors, operators, data sets and metrics, each once.

    The paper that the package implements comes first, whatever sampler was used.
    """
    from cclight import Conjugate

    found = [Conjugate.reference]
    for run in runs:
        for part in ("model.sampler", "model.prior", "operator", "data.source"):
            found += map(_reference, class_paths(run.part(part)))
        named = str(run.part("data.source")).lower()
        found += [entry for word, entry in DATASETS.items() if word in named]
        found += [entry for metric, entry in METRICS.items() if run.mean(metric) is not None]
    unique: dict[str, str] = {}
    for entry in "\n".join(filter(None, found)).split("\n@"):
        text = entry if entry.startswith("@") else f"@{entry}"
        if match := re.match(r"@\w+\{([^,]+),", text):
            unique.setdefault(match[1], text.strip())
    return list(unique.values())


def _reference(class_path: str) -> str:
    """The reference of one of cclight's classes; what a run names from elsewhere is not imported for it."""
    import cclight

    if is_own(class_path):
        return getattr(getattr(cclight, class_path.rpartition(".")[2]), "reference", "")
    print(f"cclight cite: {class_path} is none of cclight's own classes: its reference is left out", file=sys.stderr)
    return ""
