"""The ground floor: types, contracts, errors, names, files. It imports nothing of the others."""
