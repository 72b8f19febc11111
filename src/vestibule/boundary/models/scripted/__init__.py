"""The provider that is no model: for showing and testing the whole way without a key."""
