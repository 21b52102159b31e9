from pipeline import machine


def test_the_processor_and_the_gpus_are_named(tmp_path, monkeypatch):
    processors, gpus = tmp_path / "cpuinfo", tmp_path / "gpus"
    processors.write_text("processor\t: 0\nmodel name\t: Ex 5: fast\n\nmodel name\t: other\n")
    monkeypatch.setattr(machine, "_PROCESSORS", processors)
    monkeypatch.setattr(machine, "_GPUS", gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert machine.describe().startswith("Ex 5: fast, 4 cores; Python 3")
    assert "numpy " in machine.describe()

    for number in (0, 1):
        file = gpus / f"0000:0{number}:00.0" / "information"
        file.parent.mkdir(parents=True)
        file.write_text(f"Model: \t\t NVIDIA H{number}\nIRQ:   \t\t 5\n")
    assert machine.describe().startswith("Ex 5: fast, 4 cores, NVIDIA H0, NVIDIA H1; Python 3")


def test_another_system_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert machine.describe().startswith("arm64, ")
