"""Many photographs: find them, segment them, note what is finished and what made it."""
