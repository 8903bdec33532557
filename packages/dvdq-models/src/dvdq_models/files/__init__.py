"""Files and folders: ``text`` as editors leave it, ``destinations`` to be written, ``atomic`` writes, the ``hub``."""
