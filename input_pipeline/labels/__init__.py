"""Labels: names, hierarchy, states, subsets, packed lists."""
