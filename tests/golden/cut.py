"""Cut the golden numbers of the whole set down to those of this folder: `python tests/golden/cut.py ../shared/golden`."""

import json
import sys
from pathlib import Path

import numpy as np

# Three or four runs of each family, which differ in operator, path, guidance, λ, start and noise.
RUNS = [
    "cpgdm__bicubic4__w15_lam0_ts0.6__n5",
    "cpgdm__bicubic4__w2_lam0.5_ts0.2__n5",
    "cpgdm__deblur_gauss_fix__w15_lam0_ts0.6__n5",
    "cpgdm__in2_20ff1__w6_lam-0.4_ts0.6__n5",
    "flow_conjv2__deblur_fix__w20_st0.6_B0.2__n5",
    "flow_conjv2__inp__w20_st0.2_B0.2__n5",
    "flow_conjv2__sr4__w20_st0.6_B1__n5",
    "pgdm_cont__bicubic4__w2_lam-0.4_ts0.2__n5",
    "pgdm_cont__deblur_gauss_fix__w6_lam0_ts0.6__n5",
    "pgdm_cont__inp_20ff1__w6_lam0_ts0.6__n5",
    "flow_pgdm__deblur_fix__w1_st0.6__n5",
    "flow_pgdm__inp__w1_st0.2__n5",
    "flow_pgdm__sr4__w20_st0.6__n5",
    "ddrm__bicubic4__sigma_y0__n5",
    "ddrm__bicubic4__sigma_y0.05__n20",
    "ddrm__in2_20ff1__sigma_y0__n5",
    "dps__bicubic4__grad_term_weight1_sigma_y0_eta0__n50",
    "dps__deblur_gauss_fix__grad_term_weight1_sigma_y0_eta0__n50",
    "dps__in2_20ff1__grad_term_weight0.1_sigma_y0_eta0__n5",
]
RUN_KEYS = {"meta", "alphas_t", "exact_Phiy", "exact_Phis", "x_final"}
TARGETS = ["x_final_fixed64", "x_final_p64", "x_final_cont_exact"]  # the first of these instead of x_final
OPERATORS = [
    "op__bicubic4",
    "op__color",
    "op__deblur_gauss1_fix",
    "op__deblur_gauss_fix",
    "op__deno",
    "op__hdr",
    "op__in2_20ff1",
    "op__inp_20ff1",
    "op__quant2",
    "op__quant4",
    "op__sr4",
    "op_flow__inp",
]
OPERATOR_KEYS = {"x", "Hx", "pinv_Hx", "Ht_Hx", "y_random", "pinv_y_random"}  # their first image
FACTORS = {"U_small", "singulars_small", "V_small", "perm"}
ANY_MEASUREMENT = ("op__bicubic4", "op__color", "op__deno", "op__in2_20ff1", "op__sr4")  # where H⁺ of any y is compared
FACTORED = ("op__bicubic4", "op__deblur_gauss_fix")  # whose very basis DDRM draws its noise in
PROBES = ("_0.05", "_0.4")


def run(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Settings, targets and integrals; not the states on the way."""
    keys = set(RUN_KEYS)
    for target in TARGETS:
        if target in data:
            keys = keys - {"x_final"} | {target}
    return {key: value for key, value in data.items() if key in keys}


def operator(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first image; factors as they are."""
    name = json.loads(str(data["meta"]))["name"]
    used = OPERATOR_KEYS | {"mask"}
    if not name.startswith(ANY_MEASUREMENT):
        used -= {"y_random", "pinv_y_random"}
    if name.startswith(FACTORED):
        used |= FACTORS
    if "Ht_Hx" in data:
        used |= {"singulars"}
    return {key: value[:1] if key in OPERATOR_KEYS else value for key, value in data.items() if key in used}


def mixture(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The prior, and the first image of its probes at two of the four times."""
    probes = {key: value[:1] for key, value in data.items() if key.endswith(PROBES)}
    return {key: data[key] for key in ("mu", "s", "pi")} | {"x_clean": data["x_clean"][:1]} | probes


def problems(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The measurements that a run of this folder begins with."""
    unused = ("deblur_gauss__", "flow__deblur__", "inp_20ff1__sigma_y0.05")
    return {key: value for key, value in data.items() if not any(name in key for name in unused)}


if __name__ == "__main__":
    source, here = Path(sys.argv[1]), Path(__file__).parent
    kinds = {f"samplers/{name}": run for name in RUNS} | {f"operators/{name}__16": operator for name in OPERATORS}
    kinds |= {"samplers/gmm": mixture, "samplers/problem": problems}
    for name, cut in kinds.items():
        with np.load(source / f"{name}.npz") as file:
            kept = cut({key: file[key] for key in file.files})
        (here / name).parent.mkdir(exist_ok=True)
        np.savez_compressed(here / f"{name}.npz", **kept)
