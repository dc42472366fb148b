from .code_statistics import CodeStatistics as CodeStatistics
from .explain import Explanation as Explanation
