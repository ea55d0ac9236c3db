"""Files of pictures and masks.

- `decoding`: decodes bytes to arrays, and explains what is wrong with them;
- `rasters`, `tiff`, `pillow_formats`: read what is stored, before `decoding`
  says what it means;
- `other_kinds`: names files that are not read for what they are;
- `matlab`: does the same for label maps in MATLAB files;
- `archives`: unpacks downloaded archives temporarily;
- `listing`: the pairs of pictures and masks of a data set, and their faults;
- `matching`: pairs pictures with masks, and finds faults in their names;
- `near_names`: pairs names that are almost equal;
- `lists`: reads splits that are lists of names in text files;
- `checking`, `totals`: read all files of a listing, and report their contents;
- `near_duplicates`: finds pictures that are almost equal in several splits.
"""

from fcn_jax.data.files import archives
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab
from fcn_jax.data.files import totals

__all__ = [
  "archives",
  "checking",
  "decoding",
  "listing",
  "lists",
  "matlab",
  "totals",
]
