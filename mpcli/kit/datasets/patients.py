"""Tables of measurements on patients, which come with scikit-learn."""

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.tables import with_targets
from mpcli.kit.datasets.types import Table


def diabetes(argument: str) -> Table:
    """442 patients: age, sex, body mass index, blood pressure, six blood values; the disease a year later.

    Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004. The Annals of Statistics 32

    Licence: none is stated by its authors; given with scikit-learn
    """
    from sklearn.datasets import load_diabetes

    no_argument("diabetes", argument)
    data = load_diabetes(scaled=False)
    return with_targets("diabetes", data.data, data.target, data.feature_names, "progression", ())


def breast_cancer(argument: str) -> Table:
    """569 tumours: thirty measures of cell nuclei; malignant or benign.

    Street, Wolberg and Mangasarian, Nuclear Feature Extraction for Breast Tumor Diagnosis, 1993. SPIE 1905

    Licence: CC BY 4.0
    """
    from sklearn.datasets import load_breast_cancer

    no_argument("breast_cancer", argument)
    data = load_breast_cancer()
    names, classes = map(str, data.feature_names), tuple(map(str, data.target_names))
    return with_targets("breast_cancer", data.data, data.target, list(names), "diagnosis", classes)
