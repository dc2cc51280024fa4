"""``memory dashboard``: a web page that shows what is in a store, how it goes and how it runs."""
