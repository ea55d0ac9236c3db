"""Files of pictures and masks.

- `decoding`: bytes to arrays, and what is wrong with the bytes;
- `matlab`: the same for label maps in MATLAB files;
- `archives`: the archives that people download, unpacked for the while;
- `listing`: pairs of picture and mask, and the faults of their names;
- `lists`: splits that are lists of names in text files;
- `checking`: reads all files of a listing, and tells what is in them.
"""

from fcn_jax.data.files import archives
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab

__all__ = ["archives", "checking", "decoding", "listing", "lists", "matlab"]
