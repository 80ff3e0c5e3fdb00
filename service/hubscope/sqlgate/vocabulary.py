"""What a query may say: functions, types and constructs of PostgreSQL that only compute.

The lists were drawn from pg_proc, pg_operator and pg_type of PostgreSQL 15 and 18 and read through by hand. A function
is on the list when it does nothing but turn its arguments (and, for dates, the clock and time zone) into a result. Off
the list is what reads files, large objects or the catalogue by name, runs SQL given as text, changes or tells
settings, touches sequences, locks, snapshots, other sessions or transaction ids, sends or waits. What is not on a list
is refused: a function that PostgreSQL 19 adds is refused until somebody has read what it does.

tests/integration/sqlgate/test_vocabulary.py holds these lists against a live catalogue.
"""

from __future__ import annotations

from typing import Final


def words(text: str) -> frozenset[str]:
    """The names of a text, parted by blanks."""
    return frozenset(text.split())


_NUMBERS = """
abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd degrees div
erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow power radians round scale sign sin
sind sinh sqrt tan tand tanh trim_scale trunc width_bucket random random_normal bit_count get_bit set_bit to_bin to_oct
to_hex numeric_inc pg_size_bytes pg_size_pretty
"""
_TEXT = """
ascii bit_length btrim casefold char_length character_length chr concat concat_ws convert convert_from convert_to
format initcap is_normalized left length like_escape lower lpad ltrim md5 normalize octet_length overlay parse_ident
position quote_ident quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches
regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim
similar_escape similar_to_escape split_part starts_with string_to_array string_to_table strpos substr substring to_ascii
to_char to_number translate unicode_assigned unicode_version icu_unicode_version unistr upper like notlike
"""
_BYTES = "crc32 crc32c decode encode get_byte set_byte sha224 sha256 sha384 sha512 gen_random_uuid uuidv4 uuidv7 " + (
    "uuid_extract_timestamp uuid_extract_version"
)
_TIME = """
age clock_timestamp date_add date_bin date_part date_subtract date_trunc extract isfinite justify_days justify_hours
justify_interval make_date make_interval make_time make_timestamp make_timestamptz now overlaps statement_timestamp
timeofday timezone to_date to_timestamp transaction_timestamp
"""
_CONVERSIONS = """
bit bool bpchar bytea char cidr date daterange datemultirange float4 float8 int2 int4 int4multirange int4range int8
int8multirange int8range interval macaddr macaddr8 money multirange name numeric nummultirange numrange oid text time
timestamp timestamptz timetz tsmultirange tsrange tstzmultirange tstzrange varbit varchar
"""
_ARRAYS_AND_RANGES = """
array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_string
array_to_tsvector array_upper arraycontained arraycontains arrayoverlap cardinality enum_first enum_last enum_range
generate_series generate_subscripts isempty lower_inc lower_inf range_merge range_intersect range_minus range_union
trim_array unnest upper_inc upper_inf
"""
_JSON = """
array_to_json json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
json_each json_each_text json_extract_path json_extract_path_text json_object json_object_keys json_populate_record
json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_array_elements
jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_concat jsonb_contains jsonb_each
jsonb_each_text jsonb_exists jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert
jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz
jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
jsonb_path_query_tz jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset jsonb_pretty jsonb_set
jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb
"""
_XML = """
xml xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlcomment xmlexists xmltext xpath
xpath_exists
"""
_TEXT_SEARCH = """
json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery
to_tsvector ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery
"""
_NETWORK_AND_GEOMETRY = """
abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network set_masklen
macaddr8_set7bit area bound_box box center circle diagonal diameter height isclosed ishorizontal isopen isparallel
isperp isvertical line lseg npoints path pclose point polygon popen radius slope width
"""
_ABOUT = """
current_database current_schema current_schemas current_user session_user version num_nonnulls num_nulls
pg_collation_for pg_column_size pg_typeof
"""
AGGREGATES: Final = words("""
any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every json_agg
json_agg_strict json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict jsonb_agg
jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict max min
mode percentile_cont percentile_disc range_agg range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept regr_r2
regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance xmlagg
""")
WINDOWS: Final = words(
    "cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number"
)

FUNCTIONS: Final = (
    words(
        _NUMBERS
        + _TEXT
        + _BYTES
        + _TIME
        + _CONVERSIONS
        + _ARRAYS_AND_RANGES
        + _JSON
        + _XML
        + _TEXT_SEARCH
        + _NETWORK_AND_GEOMETRY
        + _ABOUT
    )
    | AGGREGATES
    | WINDOWS
)
"""Functions of pg_catalog that a query may call, by name (all overloads of each were read)."""

VOLATILE_BUT_HARMLESS: Final = words(
    "array_sample array_shuffle clock_timestamp gen_random_uuid random random_normal timeofday uuidv4 uuidv7"
)
"""The only ones on the list whose result changes by the call: random numbers and the clock."""

IN_DEFINITIONS: Final = FUNCTIONS | words("""
current_setting pg_has_role has_table_privilege has_column_privilege has_any_column_privilege has_schema_privilege
has_database_privilege has_function_privilege row_security_active pg_get_userbyid system_user inet_client_addr
pg_backend_pid txid_current_snapshot pg_current_snapshot ts_match_vq ts_match_qv
""")
"""What the body of a view may call besides operators: its owner wrote it, and a query cannot choose the arguments."""

TYPES: Final = words("""
bit bool box bpchar bytea char cidr circle date datemultirange daterange float4 float8 inet int2 int4 int4multirange
int4range int8 int8multirange int8range interval json jsonb jsonpath line lseg macaddr macaddr8 money name numeric
nummultirange numrange oid path pg_lsn point polygon regconfig text tid time timestamp timestamptz timetz tsmultirange
tsquery tsrange tstzmultirange tstzrange tsvector uuid varbit varchar xid xid8 xml
""")
"""Types of pg_catalog that a query may name. Off the list: reg* types, which look names up in the catalogue."""

SYSTEM_TYPES_REFUSED: Final = words("""
aclitem any anyarray anycompatible anycompatiblearray anycompatiblemultirange anycompatiblenonarray anycompatiblerange
anyelement anyenum anymultirange anynonarray anyrange cid cstring event_trigger fdw_handler gtsvector index_am_handler
int2vector internal language_handler oidvector pg_brin_bloom_summary pg_brin_minmax_multi_summary pg_ddl_command
pg_dependencies pg_mcv_list pg_ndistinct pg_node_tree pg_snapshot record refcursor regclass regcollation regdictionary
regnamespace regoper regoperator regproc regprocedure regrole regtype table_am_handler trigger tsm_handler
txid_snapshot unknown void
""")
"""The other types of pg_catalog. An unqualified name means these, since pg_catalog comes first in the search path."""

MAKE_ROWS: Final = words("""
json_populate_record json_populate_recordset jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset
""")
"""Functions that turn text into every column's type of a row: domains among them are checked."""

TAKE_NAMES: Final = words("""
json_to_tsvector jsonb_to_tsvector phraseto_tsquery plainto_tsquery to_tsquery to_tsvector ts_headline
websearch_to_tsquery pg_typeof
""")
"""Functions beside which a literal may be read as the name of something in the catalogue."""

TYPES_OF_NAMES: Final = frozenset({"regconfig"})
"""Types whose literals are such names."""

SAMPLING_METHODS: Final = frozenset({"bernoulli", "system"})

NODES: Final = words("""
RawStmt SelectStmt ResTarget ColumnRef A_Star A_Const Integer Float Boolean String BitString ParamRef A_Expr BoolExpr
NullTest BooleanTest TypeCast TypeName FuncCall NamedArgExpr SubLink CaseExpr CaseWhen CoalesceExpr MinMaxExpr
SQLValueFunction RowExpr A_ArrayExpr A_Indices A_Indirection CollateClause GroupingSet GroupingFunc WindowDef SortBy
RangeVar Alias RangeSubselect RangeFunction RangeTableSample RangeTableFunc RangeTableFuncCol JoinExpr WithClause
CommonTableExpr CTESearchClause CTECycleClause ColumnDef XmlExpr XmlSerialize JsonFuncExpr JsonOutput JsonReturning
JsonFormat JsonValueExpr JsonBehavior JsonArgument JsonTable JsonTableColumn JsonTablePathSpec JsonKeyValue
JsonObjectConstructor JsonArrayConstructor JsonArrayQueryConstructor JsonObjectAgg JsonArrayAgg JsonAggConstructor
JsonIsPredicate JsonParseExpr JsonScalarExpr JsonSerializeExpr
""")
"""Nodes of the parse tree that a query may be made of."""

CALLS_ON_OLDER_SERVERS: Final = {
    "JsonFuncExpr": ("json_exists", "json_value", "json_query"),
    "JsonParseExpr": ("json",),
    "JsonScalarExpr": ("json_scalar",),
    "JsonSerializeExpr": ("json_serialize",),
    "JsonObjectConstructor": ("json_object",),
    "JsonArrayConstructor": ("json_array",),
    "JsonArrayQueryConstructor": ("json_array",),
    "JsonObjectAgg": ("json_objectagg",),
    "JsonArrayAgg": ("json_arrayagg",),
    "JsonTable": ("json_table",),
}
"""Constructs that a server older than this grammar reads as calls of a function of that name."""

STATEMENTS: Final = {
    "InsertStmt": "INSERT writes; events go in through POST /v1/events",
    "UpdateStmt": "UPDATE writes",
    "DeleteStmt": "DELETE writes",
    "MergeStmt": "MERGE writes",
    "TransactionStmt": "transactions are ours: each query runs in a READ ONLY one that is rolled back",
    "ExplainStmt": "call analyze_query with the SELECT: it plans without running",
    "CopyStmt": "COPY reads and writes files; SELECT the rows",
    "DoStmt": "DO runs code",
    "CallStmt": "CALL runs code",
    "VariableSetStmt": "SET changes the session",
    "VariableShowStmt": "SHOW tells the server's settings",
    "PrepareStmt": "pass values in params, as $1, $2; preparing is done for you",
    "ExecuteStmt": "pass values in params, as $1, $2; preparing is done for you",
    "DeallocateStmt": "preparing is done for you",
    "DeclareCursorStmt": "rows come in pages by themselves",
    "FetchStmt": "rows come in pages by themselves",
    "ListenStmt": "LISTEN keeps state in the session",
    "NotifyStmt": "NOTIFY writes to other sessions",
    "UnlistenStmt": "UNLISTEN changes the session",
    "LockStmt": "LOCK stops others",
    "CreateTableAsStmt": "CREATE writes; leave it away, or use WITH x AS (SELECT ...)",
    "CreateStmt": "CREATE writes",
    "ViewStmt": "CREATE writes; use WITH x AS (SELECT ...)",
    "DropStmt": "DROP writes",
    "TruncateStmt": "TRUNCATE writes",
    "VacuumStmt": "VACUUM and ANALYZE write; analyze_query plans a SELECT",
    "DiscardStmt": "DISCARD changes the session",
}

INSTEAD: Final = {
    "set_config": "settings cannot be changed here",
    "current_setting": "the server's settings are not told",
    "pg_sleep": "nothing to wait for here",
    "pg_sleep_for": "nothing to wait for here",
    "query_to_xml": "write the query itself",
    "query_to_xml_and_xmlschema": "write the query itself",
    "table_to_xml": "SELECT from the table",
    "ts_stat": "unnest(tsvector_to_array(...)) with GROUP BY counts lexemes",
    "ts_rewrite": "combine tsquery values with && and ||",
    "crosstab": "use count(*) FILTER (WHERE ...) or CASE, one for each column",
    "dblink": "only this database is served",
    "nextval": "SELECT max(id) FROM the table",
    "currval": "SELECT max(id) FROM the table",
    "pg_relation_size": "list_tables and describe_table tell sizes",
    "pg_table_size": "list_tables and describe_table tell sizes",
    "pg_total_relation_size": "list_tables and describe_table tell sizes",
    "pg_indexes_size": "describe_table tells sizes",
    "pg_get_viewdef": "describe_table tells a view's definition",
    "pg_get_indexdef": "describe_table tells indexes",
    "pg_get_constraintdef": "describe_table tells constraints",
    "pg_get_functiondef": "the resource postgres://function/{schema}/{name} describes functions",
    "obj_description": "describe_table tells comments",
    "col_description": "describe_table tells comments",
    "to_regclass": "list_tables tells which tables there are",
    "pg_read_file": "files are not served",
    "pg_ls_dir": "files are not served",
    "setseed": "the session is shared",
    "pg_input_is_valid": "it takes a type by name and runs what the type runs; cast, or compare with a pattern",
    "pg_input_error_info": "it takes a type by name and runs what the type runs; cast, or compare with a pattern",
}

_TRGM = "similarity strict_word_similarity word_similarity show_trgm"
_HSTORE = """
akeys avals defined delete each exist exists_all exists_any fetchval hstore hstore_to_array hstore_to_json
hstore_to_json_loose hstore_to_jsonb hstore_to_jsonb_loose hstore_to_matrix isdefined isexists populate_record skeys
slice slice_array svals hs_concat
"""
_VECTOR = """
binary_quantize cosine_distance hamming_distance inner_product jaccard_distance l1_distance l2_distance l2_norm
l2_normalize subvector vector_dims vector_norm
"""
_TIMESCALE = """
approx_count_distinct first histogram interpolate last locf time_bucket time_bucket_gapfill
"""
EXTENSIONS: Final[dict[str, frozenset[str]]] = {
    "citext": words("citext"),
    "cube": words(
        "cube cube_contained cube_contains cube_dim cube_distance cube_enlarge cube_inter cube_is_point "
        "cube_ll_coord cube_overlap cube_size cube_subset cube_union cube_ur_coord distance_chebyshev "
        "distance_taxicab"
    ),
    "earthdistance": words(
        "earth earth_box earth_distance gc_to_sec geo_distance latitude ll_to_earth longitude sec_to_gc"
    ),
    "fuzzystrmatch": words(
        "daitch_mokotoff difference dmetaphone dmetaphone_alt levenshtein levenshtein_less_equal metaphone soundex"
    ),
    "hstore": words(_HSTORE),
    "intarray": words(
        "icount idx intset intset_subtract intset_union_elem querytree sort sort_asc sort_desc subarray uniq"
    ),
    "isn": words("ean13 isbn isbn13 ismn ismn13 issn issn13 is_valid make_valid upc"),
    "ltree": words("index lca ltree ltree2text nlevel subltree subpath text2ltree"),
    "pg_trgm": words(_TRGM),
    "pgcrypto": words("digest gen_random_bytes gen_random_uuid hmac"),
    "postgis": words("box2d box3d geography geometry geometrytype"),
    "seg": words("seg_center seg_lower seg_size seg_upper"),
    "tablefunc": words("normal_rand"),
    "timescaledb": words(_TIMESCALE),
    "unaccent": words("unaccent"),
    "uuid-ossp": words(
        "uuid_generate_v1 uuid_generate_v1mc uuid_generate_v3 uuid_generate_v4 uuid_generate_v5 "
        "uuid_nil uuid_ns_dns uuid_ns_oid uuid_ns_url uuid_ns_x500"
    ),
    "vector": words(_VECTOR),
}
"""Functions of extensions that were read through, by extension. PostGIS is taken by its prefix, see `extension_of`."""

_POSTGIS_REFUSED: Final = words("st_estimatedextent st_findextent st_fromgdalraster")

EXTENSION_FUNCTIONS: Final = frozenset().union(*EXTENSIONS.values())


def may_be_of_an_extension(name: str) -> bool:
    """Whether a function of this name may be called if a reviewed extension owns it."""
    return name in EXTENSION_FUNCTIONS or (name.startswith("st_") and name not in _POSTGIS_REFUSED)


def allowed_of(extension: str, name: str) -> bool:
    """Whether this function of this extension may be called. An overload of an allowed built-in one may (citext)."""
    if extension == "postgis" and name.startswith("st_"):
        return name not in _POSTGIS_REFUSED
    return extension in EXTENSIONS and (name in EXTENSIONS[extension] or name in FUNCTIONS)
