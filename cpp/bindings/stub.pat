# What the stub generator cannot see: members that are slots of the type.
_core\.FeatureVector\.__iter__$:
    \from collections.abc import Iterator
    def __iter__(self) -> Iterator[str]: ...

_core\.FeatureVector\.__len__$:
    def __len__(self) -> int: ...

_core\.FeatureVector\.__getitem__$:
    def __getitem__(self, name: str) -> float: ...

_core\.FeatureVector\.__contains__$:
    def __contains__(self, name: object) -> bool: ...

_core\.FeatureVector\.(?!get$|as_dict$|keys$|values$|items$|_)(\w+)$:
    @property
    def \1(self) -> float: ...
