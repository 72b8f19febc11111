import unittest

from src.slug import slugify


class SlugTest(unittest.TestCase):
    def test_words_are_joined(self) -> None:
        self.assertEqual(slugify("Hello World"), "hello-world")


if __name__ == "__main__":
    unittest.main()
