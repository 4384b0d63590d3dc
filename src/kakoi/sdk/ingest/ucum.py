"""Units in UCUM, case-sensitive codes (Unified Code for Units of Measure 2.2, sections 2 and 3).

The grammar is checked in full. The atoms are a selection for clinical data, with whether each takes a metric prefix; a unit
that is not among them can be written as an annotation, for example ``{score}``.
"""

from __future__ import annotations

import re
from typing import Final

from kakoi.core.errors import Malformed

_PREFIXES: Final = ("da", "Y", "Z", "E", "P", "T", "G", "M", "k", "h", "d", "c", "m", "u", "n", "p", "f", "a", "z", "y")
_METRIC_ATOMS: Final = (
    "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L t bar u eV dyn erg P Ci R RAD REM cal"
    " cal_th m[H2O] m[Hg] eq osm kat U [iU] [IU] Np B B[SPL] st bit By Bd"
)
_PLAIN_ATOMS: Final = (
    "10* 10^ [pi] % [ppth] [ppm] [ppb] [pptr] deg ' '' min h d wk mo mo_j a a_j atm att [psi] [degF]"
    " [in_i] [ft_i] [mi_i] [lb_av] [oz_av] [gr] [gal_us] [qt_us] [pt_us] [foz_us] [cup_us] [tbs_us] [tsp_us]"
    " [in_i'Hg] [PRU] [wood'U] [diop] [p'diop] [Ch] [drp] [MET] [Cal] [pH] [HPF] [LPF] [arb'U] [USP'U] [GPL'U] [MPL'U]"
    " [APL'U] [beth'U] [anti'Xa'U] [todd'U] [dye'U] [smgy'U] [bdsk'U] [ka'U] [knk'U] [mclg'U] [tb'U] [CCID_50] [TCID_50]"
    " [EID_50] [PFU] [FFU] [CFU] [IR] [BAU] [AU] [Amb'a'1'U] [PNU] [Lf] [D'ag'U] [FEU] [ELU] [EU] [NTU] [S]"
)
_METRIC: Final = frozenset(_METRIC_ATOMS.split())
_PLAIN: Final = frozenset(_PLAIN_ATOMS.split())
_HABITS: Final = {
    "mmHg": "mm[Hg]",
    "years": "a",
    "year": "a",
    "yr": "a",
    "yrs": "a",
    "months": "mo",
    "month": "mo",
    "weeks": "wk",
    "days": "d",
    "day": "d",
    "hours": "h",
    "hr": "h",
    "minutes": "min",
    "sec": "s",
    "°C": "Cel",
    "C°": "Cel",
    "celsius": "Cel",
    "IU/L": "[IU]/L",
    "U/l": "U/L",
    "mcg": "ug",
    "µg": "ug",
    "μg": "ug",
    "mEq/L": "meq/L",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "inch": "[in_i]",
    "in": "[in_i]",
    "bpm": "/min",
    "beats/min": "/min",
    "10^9/L": "10*9/L",
    "percent": "%",
    "cc": "mL",
    "kgs": "kg",
    "kg/m²": "kg/m2",
    "gm": "g",
    "sqm": "m2",
}
_PART: Final = re.compile(r"\{[\x21-\x7a\x7c\x7e]*\}|\[[^\[\]\s]*\]|[./()]|[^\[\]{}./()\s]+|.")
_EXPONENT: Final = re.compile(r"(.*?)([+-]?[1-9][0-9]?)?\Z")


def require_unit(unit: str) -> None:
    """Raise Malformed unless ``unit`` is a UCUM term of known atoms. The hint names the usual slip where there is one."""
    hint = f"write {_HABITS[unit]}" if unit in _HABITS else "see ucum.org; an unlisted unit can be written as {name}"
    if not unit.isascii() or not all(33 <= ord(c) <= 126 for c in unit):
        raise Malformed("ucum.characters", f"expected printable ASCII without spaces, got {unit!r}", hint=hint)
    problem = _Term(unit).problem()
    if problem:
        raise Malformed("ucum.unit", f"expected a UCUM unit, got {unit!r}: {problem}", hint=hint)


class _Term:
    """One pass over the parts of a term: components joined by '.' and '/', with parentheses and annotations."""

    def __init__(self, unit: str) -> None:
        self._parts = _joined(unit)

    def problem(self) -> str:
        """What is wrong, or nothing."""
        depth, wants_unit, after_unit = 0, True, False
        for i, part in enumerate(self._parts):
            if part in "./":
                if wants_unit and not (part == "/" and i == 0):
                    return f"{part!r} without a unit before it"
                wants_unit, after_unit = True, False
            elif part == "(":
                if after_unit:
                    return "a parenthesis right after a unit"
                depth += 1
            elif part == ")":
                if wants_unit or not depth:
                    return "a parenthesis that closes nothing"
                depth, after_unit = depth - 1, True
            elif wrong := self._component(part, after_unit=after_unit):
                return wrong
            else:
                wants_unit, after_unit = False, True
        return "an open end" if wants_unit or depth else ""

    @staticmethod
    def _component(part: str, *, after_unit: bool) -> str:
        if part.startswith("{"):
            return "" if part.endswith("}") else "an annotation that is not closed"
        if after_unit:
            return f"{part!r} right after another unit"
        return "" if _known(part) else f"unknown unit {part!r}"


def _joined(unit: str) -> list[str]:
    """Tokens, with bracketed parts joined to the letters around them: m[H2O], mm[Hg], [in_i]2."""
    out: list[str] = []
    glue = False
    for part in _PART.findall(unit):
        plain = part[0] not in "./(){"
        if glue and plain:
            out[-1] += part
        else:
            out.append(part)
        glue = plain
    return out


def _known(part: str) -> bool:
    if re.fullmatch(r"[1-9][0-9]*", part):
        return True
    for atom in {part, _EXPONENT.sub(r"\1", part)}:
        if atom in _METRIC or atom in _PLAIN:
            return True
        if any(atom.startswith(p) and atom[len(p) :] in _METRIC for p in _PREFIXES):
            return True
    return bool(re.fullmatch(r"10[*^][+-]?[1-9][0-9]?", part))
