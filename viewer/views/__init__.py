"""What each part of the page shows: pure functions from recordings and a selection to plain data."""
