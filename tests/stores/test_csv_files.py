"""The CSV writer: rows, columns, resumed runs, torn lines, and damage."""

import csv

import pytest

from cake_jax.stores.metrics.csv_files import CsvFiles
from cake_jax.types import CakeError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics-teacher.csv"


def write_rows(folder, rows, stage="teacher"):
    writer = CsvFiles(folder)
    for step, values in rows:
        writer.write(stage, step, values)
    writer.close()


def test_rows_have_a_header_and_one_line_for_each_step(tmp_path, path):
    write_rows(tmp_path, [(1, {"loss": 0.1, "epoch": 1}), (2, {"loss": 1e-9, "epoch": 2})])
    assert path.read_bytes() == b"step,loss,epoch\n1,0.1,1\n2,1e-09,2\n"


def test_each_stage_has_its_own_file(tmp_path):
    writer = CsvFiles(tmp_path)
    writer.write("teacher", 1, {"loss": 0.5})
    writer.write("synthesis", 0, {"gap": 2.0})
    writer.write("teacher", 2, {"loss": 0.25})
    content = {path.name: path.read_text() for path in tmp_path.glob("*.csv")}
    assert content == {
        "metrics-teacher.csv": "step,loss\n1,0.5\n2,0.25\n",
        "metrics-synthesis.csv": "step,gap\n0,2.0\n",
    }


def test_first_row_decides_the_columns(tmp_path, path):
    write_rows(tmp_path, [(1, {"a": 1, "b": 2}), (2, {"b": 3}), (3, {"c": 4, "b": 5, "a": 6})])
    assert path.read_text() == "step,a,b\n1,1,2\n2,,3\n3,6,5\n"


def test_values_of_other_types_fill_one_cell(tmp_path, path):
    write_rows(tmp_path, [(1, {"none": None, "text": 'a "b",\nc', "list": [1, "x\ny"], "dict": {"k": 1.5}})])
    assert path.read_text().count("\n") == 2
    with open(path, newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"step": "1", "none": "", "text": 'a "b", c', "list": '[1, "x\\ny"]', "dict": '{"k": 1.5}'}
        ]


def test_resumed_writer_skips_the_steps_of_the_file(tmp_path, path):
    write_rows(tmp_path, [(1, {"loss": 0.5}), (2, {"loss": 0.25})])
    write_rows(tmp_path, [(2, {"loss": 9.0}), (3, {"loss": 0.125})])
    assert path.read_text() == "step,loss\n1,0.5\n2,0.25\n3,0.125\n"


def test_step_that_is_written_twice_has_one_row(tmp_path, path):
    write_rows(tmp_path, [(1, {"loss": 0.5}), (1, {"loss": 9.0})])
    assert path.read_text() == "step,loss\n1,0.5\n"


def test_resumed_writer_keeps_the_columns_of_the_file(tmp_path, path):
    write_rows(tmp_path, [(1, {"a": 1, "b": 2})])
    write_rows(tmp_path, [(2, {"b": 4, "a": 3, "c": 5})])
    assert path.read_text() == "step,a,b\n1,1,2\n2,3,4\n"


def test_torn_last_line_is_dropped_and_written_again(tmp_path, path):
    write_rows(tmp_path, [(1, {"loss": 0.5}), (23, {"loss": 0.25})])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        write_rows(tmp_path, [(1, {"loss": 0.5}), (23, {"loss": 0.25})])
        assert path.read_bytes() == whole, cut


def test_two_writers_share_one_header(tmp_path, path):
    one, other = CsvFiles(tmp_path), CsvFiles(tmp_path)
    one.write("teacher", 0, {"loss": 0.5})
    other.write("teacher", 1, {"loss": 0.25})
    one.write("teacher", 2, {"loss": 0.125})
    assert path.read_text() == "step,loss\n0,0.5\n1,0.25\n2,0.125\n"


@pytest.mark.parametrize("content", [b"step,loss\nx,1\n", b"step,loss\n\n", b"\xff\xfe\n1,1\n"])
def test_damaged_file_is_refused_and_unchanged(tmp_path, path, content):
    path.write_bytes(content)
    with pytest.raises(CakeError) as caught:
        CsvFiles(tmp_path).write("teacher", 1, {"loss": 0.5})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
