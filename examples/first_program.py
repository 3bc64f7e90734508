"""A first program: one query over a Parquet file, run by compute elements on memory elements."""

import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

import scad

sales = pa.table({"store": ["north", "south", "north", "west"], "amount": [20, 35, 22, 7]})

with tempfile.TemporaryDirectory() as folder, scad.Session() as session:
    pq.write_table(sales, f"{folder}/sales.parquet")
    session.read_parquet(f"{folder}/sales.parquet")
    query = "select store, sum(amount) as total from sales group by store order by total desc"
    for row in session.sql(query).collect().to_pylist():
        print(f"{row['store']:6} {row['total']}")
    print(f"{session.last_run.elements} compute elements")
