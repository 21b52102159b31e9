"""MNIST."""

from components.data.sources.idx import IdxSource


class Mnist(IdxSource):
    """Handwritten digits, 60,000 to train and 10,000 to test, 28x28, grey.

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document
        recognition.
    """

    name = "mnist"
    title = "MNIST: 70,000 handwritten digits, 28x28, grey"
    licence = "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)"
    how_to_get = (
        "Put the four files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz into a folder and give it "
        "as the data folder or in CAPSAD_DATA_DIR."
    )
    class_names = tuple("0123456789")
    checksums = {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    }
