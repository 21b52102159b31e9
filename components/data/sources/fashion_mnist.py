"""Fashion-MNIST."""

from components.data.sources.idx import IdxSource


class FashionMnist(IdxSource):
    """Pictures of clothes, 60,000 to train and 10,000 to test, 28x28, grey.

    Reference:
        Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
    """

    name = "fashion_mnist"
    title = "Fashion-MNIST: 70,000 pictures of clothes, 28x28, grey"
    licence = "MIT (Zalando SE)"
    how_to_get = (
        "On Debian and Ubuntu install the package dataset-fashion-mnist; elsewhere put the four "
        "files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz "
        "and t10k-labels-idx1-ubyte.gz into a folder fashion-mnist and give that folder "
        "as the data folder or in CAPSAD_DATA_DIR."
    )
    system_folders = ("/usr/share/datasets/fashion-mnist",)
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    checksums = {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    }
