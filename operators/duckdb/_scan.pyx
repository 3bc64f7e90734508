"""Tables of Arrow batches that DuckDB scans by number (``csrc/scan.h``)."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc


cdef extern from "csrc/arrow_abi.h":
    struct ArrowSchema:
        pass
    struct ArrowArray:
        pass


cdef extern from "csrc/scan.h":
    struct scan_table:
        pass
    scan_table* scan_table_new(const ArrowSchema*, ArrowArray**, int64_t, const char**) nogil
    void scan_table_range(scan_table*, int64_t, int64_t, int64_t) nogil
    bint scan_table_keep(scan_table*, int64_t, int64_t, int64_t, const uint8_t*) nogil
    int64_t scan_table_id(const scan_table*) nogil
    void scan_table_close(scan_table*) nogil


cdef class ScanTable:
    """Record batches that ``scad_scan(id)`` reads, until `close`.

    Parameters
    ----------
    schema
        Exports the schema of all batches (``__arrow_c_schema__``).
    batches
        Record batches (``__arrow_c_array__``) of that schema.
    ranges
        Least and greatest value per column, as stored integers (days of dates); None where they are
        not known. They have to be true: DuckDB relies on them.

    Raises
    ------
    TypeError
        If a column has a type that is not scanned; nothing is held then.
    """

    cdef scan_table* _table

    def __cinit__(self, schema, batches, ranges=()):
        cdef const char* reason = NULL
        cdef ArrowArray** arrays
        cdef Py_ssize_t n
        exported = [batch.__arrow_c_array__()[1] for batch in batches]
        described = schema.__arrow_c_schema__()
        n = len(exported)
        arrays = <ArrowArray**>malloc((n + 1) * sizeof(ArrowArray*))
        if arrays == NULL:
            raise MemoryError
        try:
            for i in range(n):
                arrays[i] = <ArrowArray*>PyCapsule_GetPointer(exported[i], "arrow_array")
            self._table = scan_table_new(
                <ArrowSchema*>PyCapsule_GetPointer(described, "arrow_schema"), arrays, n, &reason
            )
        finally:
            free(arrays)
        if self._table == NULL:
            raise TypeError(reason.decode())
        for i, known in enumerate(ranges):
            if known is not None:
                scan_table_range(self._table, i, known[0], known[1])

    def keep(self, Py_ssize_t column, int64_t low, const uint8_t[::1] bits):
        """Give only rows whose value in a column of signed integers is among some values, which NULL
        never is. To be called before a statement names the table; of several sets a row has to be
        in all.

        Parameters
        ----------
        low
            The value of the first bit.
        bits
            One for each value from `low` on, as ``numpy.packbits(…, bitorder="little")`` packs them.

        Raises
        ------
        ValueError
            If the column is not of signed integers, or the table is closed.
        """
        cdef const uint8_t* first = &bits[0] if bits.shape[0] else NULL
        if self._table == NULL or not scan_table_keep(
            self._table, column, low, bits.shape[0] * 8, first
        ):
            raise ValueError(f"column {column} has no keys to keep")

    @property
    def id(self):
        """The number that the statement names; 0 once closed."""
        return 0 if self._table == NULL else scan_table_id(self._table)

    def close(self):
        """Let go of the batches, as soon as no statement reads them any more."""
        cdef scan_table* table = self._table
        self._table = NULL
        if table != NULL:
            with nogil:  # what is released may want the GIL
                scan_table_close(table)

    def __dealloc__(self):
        self.close()
